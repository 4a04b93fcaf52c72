import { describe, expect, it } from '@jest/globals';
import { desiredOf, emptyWorld, identity } from '../../test/unit/model.ts';
import { KubeError, type KubeErrorKind } from '../kube/errors.ts';
import { DerivedVault } from '../plan/facts/derived-vault.ts';
import { markerOf } from '../plan/facts/identity.ts';
import { readTokenIssuer } from './token-issuer.ts';

/** A world with an auth mount whose configuration asks for an issuer; undefined: it asks for none. */
function derived(issuer: string | undefined, { ours = false, ...spec }: { ours?: boolean; [field: string]: unknown }) {
  const { vault } = emptyWorld();
  vault.authMount = { type: 'kubernetes', description: ours ? markerOf(identity, 'made') : '', maxLeaseTtl: 0 };
  vault.authConfig = {
    host: 'https://a',
    caCert: '',
    disableLocalCaJwt: false,
    reviewerJwtSet: false,
    ...(issuer === undefined ? {} : { issuer }),
    otherFields: [],
  };
  return new DerivedVault(desiredOf(spec), vault);
}

/** An API server that counts how often it is asked. */
function apiServer(answer: string | Error) {
  const asked: unknown[] = [];
  const tokenIssuer = async () => {
    asked.push('');
    if (typeof answer !== 'string') throw answer;
    return await Promise.resolve(answer);
  };
  return { asked, tokenIssuer };
}

describe('the issuer of tokens', () => {
  it('is what the API server says', async () => {
    expect(await readTokenIssuer(apiServer('https://ours'), derived('https://theirs', {}), false)).toBe('https://ours');
  });

  it.each<KubeErrorKind>(['NotFound', 'Forbidden', 'Unavailable', 'TooManyRequests', 'Unknown'])(
    'is unknown, and nothing else fails, if the API server answers %s',
    async (kind) => {
      const server = apiServer(new KubeError('no', { kind }));
      expect(await readTokenIssuer(server, derived('https://theirs', {}), false)).toBeUndefined();
    },
  );

  it('is unknown if the document names none', async () => {
    expect(await readTokenIssuer(apiServer(''), derived('https://theirs', {}), false)).toBeUndefined();
  });

  it.each<[string, Parameters<typeof derived>, boolean]>([
    ['while the resource is deleted', ['https://theirs', {}], true],
    ['if the configuration names no issuer', [undefined, {}], false],
    ['of a mount that the operator made, whose configuration it restores', ['https://theirs', { ours: true }], false],
  ])('is not asked for %s', async (_what, world, deleting) => {
    const server = apiServer('https://ours');
    expect(await readTokenIssuer(server, derived(...world), deleting)).toBeUndefined();
    expect(server.asked).toEqual([]);
  });

  it('a bug is no answer of the API server', async () => {
    await expect(
      readTokenIssuer(apiServer(new TypeError('a bug')), derived('https://theirs', {}), false),
    ).rejects.toThrow('a bug');
  });
});
