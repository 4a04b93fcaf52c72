import { describe, expect, it } from '@jest/globals';
import { noInjector } from '../../src/plan/facts/observed-injector.ts';
import fc from 'fast-check';
import { generationName, markerOf } from '../../src/plan/facts/identity.ts';
import { ownEntry, type Observed } from '../../src/plan/facts/observed.ts';
import { plan } from '../../src/plan/plan.ts';
import { simulateStep } from '../../src/plan/simulate.ts';
import type { Step, StepKind } from '../../src/plan/steps.ts';
import { converge, desiredOf, emptyWorld, essence, handMadeWorld, identity, someCa, start, derived } from './model.ts';

const now = start;
const d = desiredOf();

/** The world after a number of iterations. */
function after(from: Observed, iterations: number): Observed {
  let world = from;
  for (let i = 0; i < iterations; i += 1)
    for (const step of plan(d, world, now).steps) world = simulateStep(d, world, step, now);
  return world;
}

const kinds = (steps: Step[]): StepKind[] => steps.map((step) => step.kind);

describe('the first reconcile', () => {
  it('reaches a published set and a patched control plane, and then asks for nothing', () => {
    const { world, done, last } = converge(d, emptyWorld());
    expect(last).toEqual({ problems: [], steps: [] });
    expect(essence(d, world)).toMatchObject({
      liveDefect: undefined,
      defaultIsLive: true,
      fields: true,
      roots: 1,
      rootKeys: 1,
      staging: undefined,
    });
    expect(world.vault.intermediatePki?.keys).toHaveLength(1);
    expect(kinds(done)).toEqual([
      'ClaimControlPlane',
      'MountKV',
      'WriteState',
      'MountPKI',
      'MountPKI',
      'GenerateRoot',
      'WritePolicy',
      'WriteRole',
      'LimitVersions',
      'StageKey',
      'ImportKey',
      'SignIntermediate',
      'PublishLive',
      'WriteState',
      'RemoveStaging',
      'PatchControlPlane',
      'WriteState',
    ]);
  });

  it('writes the control plane only after everything in Vault', () => {
    const { done } = converge(d, emptyWorld());
    // the last step records that the control plane has carried the fields
    expect(kinds(done).slice(kinds(done).indexOf('PatchControlPlane'))).toEqual(['PatchControlPlane', 'WriteState']);
  });
});

/** Changes that others can make to objects of the operator, by name. */
const damages: Record<string, (w: Observed) => void> = {
  'live entry removed': (w) => void (w.vault.live = { casVersion: w.vault.live.casVersion, entry: undefined }),
  'live key replaced': (w) => {
    const live = ownEntry(w.vault.live);
    if (live) live.publicKey = 'another';
  },
  'state removed': (w) => void (w.vault.state = { casVersion: w.vault.state.casVersion, entry: undefined }),
  'staging removed': (w) => void (w.vault.staging = { casVersion: w.vault.staging.casVersion, entry: undefined }),
  'policy edited': (w) => void (w.vault.policy = w.vault.policy && `${w.vault.policy}\n# edited`),
  'role removed': (w) => void (w.vault.role = undefined),
  'default issuer moved': (w) => {
    if (w.vault.intermediatePki) w.vault.intermediatePki.defaultIssuerId = '';
  },
  'intermediate issuers removed': (w) => {
    if (w.vault.intermediatePki) w.vault.intermediatePki.issuers = [];
  },
  'intermediate mount remade empty': (w) => {
    if (w.vault.intermediatePki) w.vault.intermediatePki = { issuers: [], keys: [], defaultIssuerId: '' };
  },
  'mount tuned down': (w) => {
    if (w.vault.rootMount) w.vault.rootMount.maxLeaseTtl = 3600;
  },
  'role opened to others': (w) => {
    if (w.vault.role) w.vault.role.otherFields = ['bound_service_account_namespace_selector', 'token_period'];
  },
  'default issuer follows the latest': (w) => {
    if (w.vault.rootPki) w.vault.rootPki.followsLatest = true;
  },
  'intermediate revoked': (w) => {
    const live = ownEntry(w.vault.live)?.certificate?.fingerprint;
    const issuer = w.vault.intermediatePki?.issuers.find(({ certificate }) => certificate.fingerprint === live);
    if (issuer) issuer.revoked = true;
  },
  'fields edited': (w) => {
    if (w.kubernetes.controlPlane) w.kubernetes.controlPlane.carriesFields = false;
  },
};

describe('properties', () => {
  const subset = (steps: Step[], bits: number) => steps.filter((_, i) => (bits >> i) & 1);

  it('a crash after any steps of any rounds, then going on, ends in the same state', () => {
    const undisturbed = essence(d, converge(d, emptyWorld()).world);
    fc.assert(
      fc.property(fc.array(fc.nat(31), { maxLength: 25 }), (bits) => {
        const pick = (steps: Step[], round: number) => (round < bits.length ? subset(steps, bits[round]!) : steps);
        const { world, last } = converge(d, emptyWorld(), { pick });
        expect(essence(d, world)).toEqual(undisturbed);
        expect(last.problems).toEqual([]);
        expect(world.vault.intermediatePki?.keys).toHaveLength(1);
      }),
      { numRuns: 100 },
    );
  });

  it('any damage at any time is repaired, without a second root and without touching the live key', () => {
    fc.assert(
      fc.property(fc.nat(14), fc.array(fc.constantFrom(...Object.keys(damages)), { maxLength: 4 }), (rounds, names) => {
        const world = after(emptyWorld(), rounds);
        for (const name of names) damages[name]?.(world);
        const { world: end, done, last } = converge(d, world);
        expect(last.problems).toEqual([]);
        expect(essence(d, end)).toMatchObject({
          liveDefect: undefined,
          defaultIsLive: true,
          fields: true,
          roots: 1,
          rootKeys: 1,
          staging: undefined,
        });
        const collected = done.flatMap((s) => (s.kind === 'Collect' ? s.keyIds : []));
        expect(end.vault.intermediatePki?.keys.filter((key) => collected.includes(key.id))).toEqual([]);
        expect(end.vault.intermediatePki?.keys.length).toBeLessThanOrEqual(2);
      }),
      { numRuns: 100 },
    );
  });

  it('never adopts the auth mount of somebody else: its configuration decides for everybody’s logins', () => {
    const shared = (spec: Record<string, unknown>) => {
      const wanted = desiredOf({ adopt: true, ...spec });
      const world = handMadeWorld(wanted);
      world.vault.authMount = { type: 'kubernetes', description: '', maxLeaseTtl: 0 };
      world.vault.authConfig = {
        host: 'https://theirs',
        caCert: '',
        disableLocalCaJwt: false,
        reviewerJwtSet: false,
        otherFields: [],
      };
      return { wanted, world };
    };
    const { wanted, world } = shared({ kubernetesAuth: { config: { manage: true } } });
    expect(plan(wanted, world, now)).toMatchObject({ steps: [], problems: [{ reason: 'AuthConfigNotOwned' }] });
    const left = shared({});
    const { done, world: end } = converge(left.wanted, left.world);
    expect(kinds(done)).not.toContain('WriteAuthConfig');
    expect(ownEntry(end.vault.state)?.adopted).not.toContain('auth:kubernetes');
  });

  it('refuses to adopt a key that istiod does not take', () => {
    const wanted = desiredOf({ adopt: true });
    const world = handMadeWorld(wanted);
    const [issuer] = world.vault.intermediatePki?.issuers ?? [];
    if (issuer) issuer.certificate = { ...issuer.certificate, keyType: 'other', keyBits: 0 };
    expect(plan(wanted, world, now)).toMatchObject({ steps: [], problems: [{ reason: 'KeyUnsupported' }] });
  });

  it('never plans anything while something of somebody else stands in a place of ours', () => {
    const theirs = { ...identity, name: 'other', uid: 'u-2' };
    const foreign: Record<string, (w: Observed) => void> = {
      'root mount': (w) => void (w.vault.rootMount = { type: 'pki', description: markerOf(theirs), maxLeaseTtl: 0 }),
      'intermediate mount': (w) => void (w.vault.intermediateMount = { type: 'pki', description: '', maxLeaseTtl: 0 }),
      'live entry': (w) => void (w.vault.live = { casVersion: 3, entry: 'foreign' }),
      'staging entry': (w) => void (w.vault.staging = { casVersion: 3, entry: 'foreign' }),
      'state entry': (w) => void (w.vault.state = { casVersion: 3, entry: 'foreign' }),
      policy: (w) => void (w.vault.policy = `# ${markerOf(theirs)}\n`),
      role: (w) =>
        void (w.vault.role = {
          serviceAccountNames: ['x'],
          serviceAccountNamespaces: ['y'],
          policies: ['z'],
          tokenTtl: 0,
          audience: '',
          otherFields: [],
        }),
    };
    for (const [name, put] of Object.entries(foreign)) {
      const world = emptyWorld();
      if (name.endsWith('entry')) world.vault.kvMount = { type: 'kv', description: '', maxLeaseTtl: 0, kvVersion: 2 };
      put(world);
      const { steps, problems } = plan(d, world, now);
      expect({ name, steps, reasons: problems.map((p) => p.reason) }).toEqual({
        name,
        steps: [],
        reasons: ['MountNotOwned'],
      });
    }
  });
});

describe('repairs', () => {
  it('a consistent set of another CA, put in place of the live one, is replaced by a new generation of ours', () => {
    const { world } = converge(d, emptyWorld());
    const root = someCa('their root', undefined);
    const certificate = someCa('theirs', root);
    const { publicKey } = certificate;
    const foreign = { generation: 1, keyRef: '', certificate, chain: certificate.pem, root: root.pem, publicKey };
    world.vault.live = { casVersion: world.vault.live.casVersion + 1, entry: foreign };
    const { world: end, done } = converge(d, world);
    expect(kinds(done)).toContain('StageKey');
    expect(ownEntry(end.vault.live)?.generation).toBe(2);
    expect(derived(d, end).currentCa).toBeDefined();
  });

  it('the key of a generation that was given up goes when a later one is live; what was published stays', () => {
    let world = emptyWorld();
    for (
      let next = plan(d, world, now).steps;
      !kinds(next).includes('SignIntermediate');
      next = plan(d, world, now).steps
    ) {
      for (const step of next) world = simulateStep(d, world, step, now);
    }
    const changed = desiredOf({ intermediate: { ttl: '40000h' } });
    const { world: end } = converge(changed, world);
    expect(end.vault.intermediatePki?.keys.map((k) => k.name)).toEqual([generationName(identity, 'intermediate', 2)]);
    end.vault.live = { casVersion: end.vault.live.casVersion, entry: undefined };
    const { world: again } = converge(changed, end);
    expect(again.vault.intermediatePki?.keys).toHaveLength(2);
  });
});

describe('guards', () => {
  const another = someCa('another root', undefined);

  it('missing capabilities are Forbidden and nothing else: what was not read is not absent', () => {
    const world = converge(d, emptyWorld()).world;
    const denied = emptyWorld();
    denied.vault.missingCapabilities = [{ path: 'pki/issuers', missing: ['list'] }];
    denied.kubernetes = world.kubernetes;
    expect(plan(d, denied, now)).toMatchObject({ steps: [], problems: [{ reason: 'Forbidden' }] });
    expect(plan(d, denied, now).problems).toHaveLength(1);
  });

  const provisioned = () => converge(d, emptyWorld()).world;

  it('a lost root is RootLost, never a new one', () => {
    const world = provisioned();
    const { serial } = world.vault.rootPki!.issuers[0]!.certificate;
    world.vault.rootPki = { issuers: [], keys: [], defaultIssuerId: '' };
    expect(plan(d, world, now)).toMatchObject({ steps: [], problems: [{ reason: 'RootLost' }] });
    const message = plan(d, world, now).problems[0]?.message;
    expect(message).toContain(`Mount pki/ no longer contains the root certificate with serial ${serial}. Restore`);
    expect(message).toContain(`set annotation istiovaultca.io/allow-reissue=${serial}, then restart istiod`);
    expect(message).toContain('The intermediate goes on until it ends on 20');
    expect(message).toContain('while workloads trust both, set annotation istiovaultca.io/rotate-root to a new text');
    // what istiod needs to go on is kept, and the root mount is not made anew
    world.vault.rootMount = undefined;
    world.vault.role = undefined;
    world.vault.intermediateMount = undefined;
    expect(plan(d, world, now).steps).toMatchObject([{ kind: 'MountPKI', mount: 'istioca' }]);
    const { world: kept, last } = converge(d, world);
    expect(last).toMatchObject({ steps: [], problems: [{ reason: 'RootLost' }] });
    expect([kept.vault.role, kept.vault.intermediatePki?.issuers.length, kept.vault.rootMount]).toEqual([
      expect.anything(),
      1,
      undefined,
    ]);
  });

  it('an empty Vault behind a configured control plane is RootLost', () => {
    const world = emptyWorld();
    world.kubernetes.controlPlane = { owner: identity.name, carriesFields: true, writtenBefore: true, conflicts: [] };
    expect(plan(d, world, now)).toMatchObject({ steps: [], problems: [{ reason: 'RootLost' }] });
    world.kubernetes.meshRoots = [another];
    const message = plan(d, world, now).problems.find(({ reason }) => reason === 'RootLost')?.message;
    expect(message).toContain('but mount pki/ contains no root certificate of this resource');
    expect(message).toContain(`istiovaultca.io/allow-reissue=${another.serial}, then`);
  });

  it('a mesh with another root is left alone until confirmed', () => {
    const world = emptyWorld();
    world.kubernetes.meshRoots = [another];
    expect(plan(d, world, now)).toMatchObject({ steps: [], problems: [{ reason: 'WouldReplaceRoot' }] });
    const { fingerprint } = another;
    const confirmed = desiredOf({}, { 'istiovaultca.io/confirm-root-change': fingerprint });
    expect(plan(confirmed, world, now).problems).toEqual([]);
  });

  it('another root that appears after the fields were written stops nothing', () => {
    const world = provisioned();
    world.kubernetes.meshRoots = [another];
    expect(plan(d, world, now)).toEqual({ problems: [], steps: [] });
  });

  it('an istiod that signs nothing stops everything before its first write, and nothing afterwards', () => {
    const signsNothing = 'ENABLE_CA_SERVER=false';
    const world = emptyWorld();
    world.kubernetes.signsNothing = signsNothing;
    expect(plan(d, world, now)).toMatchObject({ steps: [], problems: [{ reason: 'ControlPlaneUnfit' }] });
    expect(plan(d, world, now).problems[0]?.message).toContain(signsNothing);
    const applied = provisioned();
    applied.kubernetes.signsNothing = signsNothing;
    applied.vault.policy = undefined;
    const { steps, problems } = plan(d, applied, now);
    expect([steps.map(({ kind }) => kind), problems.map(({ reason }) => reason)]).toEqual([
      ['WritePolicy'],
      ['ControlPlaneUnfit'],
    ]);
  });

  it('without the injector all of Vault is done and nothing of the control plane', () => {
    const world = emptyWorld();
    world.kubernetes.injector = noInjector;
    const { world: end, last } = converge(d, world);
    expect(last.problems.map((p) => p.reason)).toEqual(['InjectorNotFound']);
    expect(last.problems[0]?.message).toContain(
      'No mutating webhook named vault.hashicorp.com or openbao.org is registered. Without',
    );
    expect(essence(d, end)).toMatchObject({ liveDefect: undefined, fields: false });
  });

  it('a missing control plane does not keep Vault waiting', () => {
    const world = emptyWorld();
    world.kubernetes.controlPlane = undefined;
    const { world: end, last } = converge(d, world);
    expect(last.problems.map((p) => p.reason)).toEqual(['ControlPlaneNotFound']);
    expect(derived(d, end).currentCa).toBeDefined();
  });
});
