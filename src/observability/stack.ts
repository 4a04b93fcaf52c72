/**
 * Source files in stacks of the bundled program. A source map would take some 125 MB from the start on; the bundle has a comment with the path of a
 * module before each module, which is read when the first stack is logged.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** A module in a bundle. */
interface Part {
  /** Where it begins, counted from 1. */
  line: number;
  /** Its source file, relative to the top of the repository. */
  file: string;
}

/** Returns the modules of a bundle in their order. @param bundle as esbuild writes it, not minified */
export function partsOf(bundle: string): Part[] {
  const lines = bundle.split('\n');
  return lines.flatMap((text, at) => {
    const [, file] = /^\/\/ ((?:src|node_modules)\/\S+)$/.exec(text) ?? [];
    return file === undefined ? [] : [{ line: at + 1, file }];
  });
}

/**
 * Adds the source file to each frame of a stack that is in the bundle; the position stays that in the bundle.
 * @param url of the bundle
 */
export const withFiles = (stack: string, url: string, parts: readonly Part[]): string =>
  stack.replaceAll(/file:\/\/[^\s():]+:(\d+):\d+/g, (position, line: string) => {
    const part = position.startsWith(`${url}:`) ? parts.findLast((one) => one.line <= Number(line)) : undefined;
    return part ? `${part.file}, ${position}` : position;
  });

let read: Part[] | undefined;

/** The modules of the file that runs; none while the program runs from its sources. */
function ownParts(url: string): Part[] {
  if (!url.endsWith('/main.js')) return [];
  try {
    return partsOf(readFileSync(fileURLToPath(url), 'utf8'));
  } catch {
    // the error that is being logged matters more than its source files
    return [];
  }
}

/** Returns the stack of an error with the source files of its frames. */
export function readableStack(stack: string): string {
  read ??= ownParts(import.meta.url);
  return withFiles(stack, import.meta.url, read);
}
