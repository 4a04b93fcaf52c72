/** Which roots of a running mesh are protected, case by case. */
import { describe, expect, it } from '@jest/globals';
import { leafOf, meshBundle, provisioned } from '../../../test/unit/istiod-world.ts';
import { derived, desiredOf, emptyWorld, identity, someCa, start } from '../../../test/unit/model.ts';
import type { CertificateFacts } from '../facts/certificate.ts';
import type { MeshBundle, MeshEvidence, Served } from '../facts/observed-istiod.ts';
import { defaultIstiodValues } from '../facts/trust-places.ts';
import { wouldReplaceRoot } from './mesh-root-checks.ts';

const home = identity.namespace;
const [theirs, old] = [someCa('theirs', undefined), someCa('old', undefined)];

/** A world with a CA whose fields istiod does not have yet. */
function unapplied() {
  const world = provisioned();
  const { state, live } = world.vault;
  if (typeof state.entry !== 'object' || typeof live.entry !== 'object') throw new Error('not provisioned');
  state.entry = { ...state.entry, made: [] };
  Object.assign(world.kubernetes.controlPlane!, { carriesFields: false, writtenBefore: false });
  return { world, own: world.vault.rootPki!.issuers[0]!.certificate, intermediate: live.entry.certificate! };
}
const { world: base, own, intermediate } = unapplied();

/** An istiod with a self-signed CA sends its own certificate only. */
const bySelf = (root: CertificateFacts): Served => ({ leaf: leafOf(root), chain: [], issuer: 'CN=x' });
/** An istiod with a plugged-in CA sends the chain, here with the root. */
const withChain = (root: CertificateFacts): Served => {
  const below = someCa('intermediate', root);
  return { leaf: leafOf(below), chain: [below, root], issuer: 'CN=x' };
};
const byOwn: Served = { leaf: leafOf(intermediate), chain: [intermediate], issuer: 'CN=x' };
const silent = { unreachable: 'ETIMEDOUT' };

interface Case {
  bundles?: MeshBundle[] | 'unreadable' | 'unreadableElsewhere' | 'unselectable';
  /** What Ready replicas serve. */
  serve?: MeshEvidence['replicas'][number]['served'][];
  over?: Partial<MeshEvidence>;
  confirm?: string;
  meshRoots?: CertificateFacts[];
}

/** Returns reason and message. */
function judge({ bundles = [], serve = [], over = {}, confirm, meshRoots }: Case, world = base): [string, string] {
  const mesh: MeshEvidence = {
    bundles,
    homeDiscovered: true,
    places: [defaultIstiodValues.place!],
    incomplete: false,
    podsUnreadable: false,
    ready: serve.length,
    replicas: serve.map((served, i) => ({ name: `istiod-${i}`, served })),
    rootsOfOthers: [],
    confinedTo: [],
    ...over,
  };
  const d = desiredOf({}, confirm === undefined ? {} : { 'istiovaultca.io/confirm-root-change': confirm });
  const seen = { ...world, kubernetes: { ...world.kubernetes, mesh, meshRoots } };
  const found = wouldReplaceRoot(derived(d, seen, start));
  return [found?.reason ?? 'none', found?.message ?? ''];
}

describe('the roots of a mesh', () => {
  it.each<[string, Case, string, RegExp]>([
    ['that has published nothing and has no istiod: it is new', {}, 'none', /^/],
    ['whose istiod waits in Init, with the fields committed first', { over: { ready: 0 } }, 'none', /^/],
    ['in this namespace', { bundles: [meshBundle(home, [theirs])] }, 'WouldReplaceRoot', /another root .* is in ConfigMap istio-ca-root-cert of namespace istio-system: workloads/],
    ['in certificates that cannot be read', { bundles: [meshBundle(home, ['f'.repeat(64)])], meshRoots: [] }, 'WouldReplaceRoot', /confirm-root-change=f{64}/],
    ['in other namespaces alone', { bundles: [meshBundle('a', [theirs]), meshBundle('b', [theirs])] }, 'WouldReplaceRoot', /of namespace a, .*of namespace b/],
    ['as a ClusterTrustBundle', { bundles: [meshBundle(undefined, [theirs])] }, 'WouldReplaceRoot', /is in ClusterTrustBundle istio\.io:istiod-ca:root-cert: workloads/],
    ['that hold the root of this CA beside another', { bundles: [meshBundle(home, [theirs, own])] }, 'none', /^/],
    ['that hold it in one namespace and another in the next', { bundles: [meshBundle(home, [own]), meshBundle('shop', [theirs])] }, 'WouldReplaceRoot', /namespace shop/],
    ['in a ConfigMap without certificates', { bundles: [meshBundle(home, [])] }, 'none', /^/],
    ['of another IstioVaultCA, in its namespaces', { bundles: [meshBundle('shop', [theirs])], over: { rootsOfOthers: [theirs.fingerprint] } }, 'none', /^/],
    ['outside the namespaces of the operator', { bundles: [meshBundle('shop', [theirs])], over: { confinedTo: [home] } }, 'WouldReplaceRoot', /namespace shop/],
    ['inside them', { bundles: [meshBundle('shop', [theirs])], over: { confinedTo: [home, 'shop'] } }, 'WouldReplaceRoot', /^/],
    ['that a self-signed istiod shows', { bundles: [meshBundle(home, [theirs])], serve: [bySelf(theirs)] }, 'WouldReplaceRoot', /a running istiod has another root/],
    ['in a chain alone', { serve: [withChain(theirs)] }, 'WouldReplaceRoot', /a running istiod/],
    ['in a chain alone, and it is the one of this CA', { serve: [{ ...byOwn, chain: [intermediate, own] }] }, 'none', /^/],
    ['that nobody shows: istiod runs', { serve: [silent] }, 'MeshRootUnknown', /istiod-0: ETIMEDOUT/],
    ['that nobody shows, nor the replica that serves', { serve: [bySelf(theirs)] }, 'MeshRootUnknown', /^/],
    ['that nobody shows: the operator may not list pods', { over: { ready: 2, podsUnreadable: true } }, 'Forbidden', /list pods/],
    ['that nobody shows: whether istiod runs may not be read', { over: { ready: 'unreadable' } }, 'Forbidden', /list deployments\.apps/],
    ['in a place that stands elsewhere, without an istiod', { over: { places: [], incomplete: true } }, 'MeshRootUnknown', /a place that is not known/],
    ['as a ClusterTrustBundle that the API server does not serve', { serve: [silent], over: { places: [{ kind: 'ClusterTrustBundle' }] } }, 'MeshRootUnknown', /which only its log says/],
    ['that may not be read', { bundles: 'unreadable' }, 'Forbidden', /list configmaps/],
    ['of another name that may not be read', { bundles: 'unreadableElsewhere', over: { places: [{ kind: 'ConfigMap', name: 'team-a' }] } }, 'Forbidden', /components\/trust-bundle.*ConfigMap team-a/],
    ['of namespaces that may not be listed', { bundles: 'unselectable' }, 'Forbidden', /list namespaces/],
    ['left over, which no replica shows', { bundles: [meshBundle(home, [own]), meshBundle('before', [old])], serve: [byOwn] }, 'none', /^/],
    ['left over in this namespace too', { bundles: [meshBundle(home, [old]), meshBundle('shop', [own])], serve: [byOwn] }, 'none', /^/],
    ['left over beside those of a mesh with another root', { bundles: [meshBundle('before', [old]), meshBundle('shop', [theirs])], serve: [bySelf(theirs)] }, 'WouldReplaceRoot', /Left over, .*namespace before/],
    ['perhaps left over: one of two replicas does not answer', { bundles: [meshBundle(home, [own]), meshBundle('before', [old])], serve: [byOwn, silent] }, 'WouldReplaceRoot', /namespace before/],
    ['perhaps left over: one replica serves a certificate of somebody else', { bundles: [meshBundle(home, [own]), meshBundle('before', [old])], serve: [byOwn, withChain(theirs)] }, 'WouldReplaceRoot', /a running istiod/],
    ['that a replica shows, published beside the root of this CA: a migration', { bundles: [meshBundle(home, [theirs, own])], serve: [bySelf(theirs)] }, 'none', /^/],
    ['that a replica shows, published so in one of two namespaces', { bundles: [meshBundle(home, [theirs, own]), meshBundle('shop', [theirs])], serve: [bySelf(theirs)] }, 'WouldReplaceRoot', /is in ConfigMap istio-ca-root-cert of namespace shop/],
    ['that replicas do not agree on, with both published', { bundles: [meshBundle(home, [own, theirs])], serve: [byOwn, bySelf(theirs)] }, 'none', /^/],
    ['that replicas do not agree on', { bundles: [meshBundle(home, [own])], serve: [byOwn, withChain(theirs)] }, 'WouldReplaceRoot', /a running istiod/],
    ['that came after everything else was read', { meshRoots: [theirs] }, 'WouldReplaceRoot', /of namespace istio-system/],
    ['that came into a namespace that istiod does not discover', { meshRoots: [theirs], over: { homeDiscovered: false } }, 'none', /^/],
  ])('%s', (_, given, reason, message) => {
    const [found, text] = judge(given);
    expect(found).toBe(reason);
    expect(text).toMatch(message);
  }); // prettier-ignore

  it('that two certificates of one key have, as istiod renews its own: either may be the one of this CA', () => {
    const again = { ...own, fingerprint: 'f'.repeat(64), serial: '01' };
    const bundles = [meshBundle(home, [again, own])];
    expect(judge({ bundles, serve: [byOwn] })[0]).toBe('none');
  });

  it.each<[string, Case, CertificateFacts]>([
    ['that a replica shows', { bundles: [meshBundle(home, [old]), meshBundle('a', [theirs])], serve: [bySelf(theirs), silent] }, theirs],
    ['of this namespace', { bundles: [meshBundle('a', [theirs]), meshBundle(home, [old])] }, old],
    ['of the first namespace', { bundles: [meshBundle('b', [theirs]), meshBundle('a', [old])] }, old],
  ])('are confirmed by one hash, the one %s; then all of it goes on', (_, given, expected) => {
    expect(judge(given)[1]).toContain(`confirm-root-change=${expected.fingerprint}`);
    expect(judge({ ...given, confirm: expected.fingerprint })[0]).toBe('none');
    expect(judge({ ...given, confirm: 'unknown' })[0]).toBe('WouldReplaceRoot');
  }); // prettier-ignore

  it('that are unknown go on with the word unknown, and with no hash', () => {
    expect(judge({ serve: [silent] })[1]).toContain('confirm-root-change=unknown');
    expect(judge({ serve: [silent], confirm: 'unknown' })[0]).toBe('none');
    expect(judge({ serve: [silent], confirm: theirs.fingerprint })[0]).toBe('MeshRootUnknown');
    expect(judge({ bundles: 'unreadable', confirm: 'unknown' })[0]).toBe('Forbidden');
  });

  it('do not count any more when istiod has had the fields', () => {
    expect(judge({ bundles: [meshBundle(home, [theirs])] }, provisioned())[0]).toBe('none');
  });

  it('count before anything is made', () => {
    const given = { bundles: [meshBundle('shop', [theirs])] };
    expect(judge(given, emptyWorld())[0]).toBe('WouldReplaceRoot');
    expect(judge({ serve: [silent] }, emptyWorld())[0]).toBe('MeshRootUnknown');
    expect(judge({}, emptyWorld())[0]).toBe('none');
  });
});
