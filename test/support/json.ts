export type Json = Record<string, unknown>;

const plain = (v: unknown): v is Json => typeof v === 'object' && v !== null && !Array.isArray(v);

/** Deep merge of plain objects; arrays and values of `over` win. */
export function merge(base: Json, over: Json): Json {
  const out: Json = { ...base };
  for (const [key, value] of Object.entries(over))
    out[key] = plain(value) && plain(out[key]) ? merge(out[key], value) : value;
  return out;
}
