/** What the adapters claim of Vault and OpenBao, on both: the facts that the pure model of the planner's properties stands on. */
import { beforeAll, describe, expect, it } from '@jest/globals';
import { specSchema } from '../../src/api/schema.ts';
import { Secret } from '../../src/observability/secret.ts';
import { desire, type Desired } from '../../src/plan/facts/desired.ts';
import { generationName } from '../../src/plan/facts/identity.ts';
import { VaultClient } from '../../src/vault/client.ts';
import { executeVaultStep, type VaultStep } from '../../src/vault/execute.ts';
import { destroyAfter, destroyKv, listKv, readKv, readVersions, writeKv, type KvPlace } from '../../src/vault/kv.ts';
import { readSecretsMount } from '../../src/vault/mounts.ts';
import {
  addIssuingUsage,
  csrForKey,
  generateRoot,
  readChain,
  readPki,
  readSigned,
  setDefaultIssuer,
  signIntermediate,
} from '../../src/vault/pki.ts';
import { readList } from '../../src/vault/pki-lists.ts';
import { products, sharedStack, waitFor } from '../stack/index.ts';

const { vaults } = sharedStack();

describe.each(products)('%s', (product) => {
  const vault = vaults[product];
  const prefix = `adapter-${product}`.toLowerCase();
  let client: VaultClient;
  let desired: Desired;
  const execute = async (step: VaultStep) =>
    await executeVaultStep(
      {
        client,
        desired,
        reviewerJwt: () => Promise.resolve(undefined),
        notice: () => undefined,
        givenKey: () => Promise.resolve(undefined),
        now: () => Date.now(),
      },
      step,
    );

  beforeAll(async () => {
    client = new VaultClient({ address: vault.address, tls: { ca: vault.caPem ?? '' } });
    client.useToken(new Secret(vault.rootToken));
    const spec = specSchema.parse({
      vault: { address: vault.address, auth: { kubernetes: { role: 'x' } } },
      root: { mount: `${prefix}-pki`, key: { type: 'ec' } },
      intermediate: { mount: `${prefix}-ca`, key: { type: 'ec' }, organization: 'Acme, Inc.' },
      keyStore: { mount: `${prefix}-kv`, path: 'deep/path' },
      controlPlane: { kind: 'TetrateControlPlane', name: 'x' },
    });
    desired = desire({ cluster: 'c', namespace: 'n', name: prefix, uid: 'u' }, spec, {});
    expect(await client.health()).toMatchObject({ product, sealed: false });
    await execute({ kind: 'MountKV', mount: `${prefix}-kv`, version: 2, description: desired.mark });
    await execute({
      kind: 'MountPKI',
      mount: `${prefix}-pki`,
      maxLeaseTtl: desired.root.ttl,
      description: desired.mark,
    });
    await execute({
      kind: 'MountPKI',
      mount: `${prefix}-ca`,
      maxLeaseTtl: desired.intermediate.ttl,
      description: desired.mark,
    });
  });

  it('tells an absent mount from one that is there', async () => {
    expect(await readSecretsMount(client, `${prefix}-absent`)).toBeUndefined();
    expect(await readSecretsMount(client, `${prefix}-pki`)).toEqual({
      type: 'pki',
      description: desired.mark,
      maxLeaseTtl: desired.root.ttl,
    });
    await expect(
      execute({ kind: 'MountPKI', mount: `${prefix}-pki`, maxLeaseTtl: 1, description: '' }),
    ).rejects.toMatchObject({ kind: 'InUse' });
  });

  it('refuses a check-and-set of another version, also after the entry was destroyed', async () => {
    const place: KvPlace = { mount: `${prefix}-kv`, path: 'cas', version: 2 };
    expect(await readKv(client, place)).toEqual({ casVersion: 0, data: undefined });
    await writeKv(client, place, { a: '1' }, 0);
    await expect(writeKv(client, place, { a: '2' }, 0)).rejects.toMatchObject({ kind: 'CheckAndSet' });
    await destroyKv(client, place, [1]);
    expect(await readKv(client, place)).toEqual({ casVersion: 1, data: undefined });
    await expect(writeKv(client, place, { a: '3' }, 0)).rejects.toMatchObject({ kind: 'CheckAndSet' });
    await writeKv(client, place, { a: '4' }, 1);
    await destroyKv(client, place, [1]); // late, of a version that is not current: what was written since stays
    expect(await readKv(client, place)).toEqual({ casVersion: 2, data: { a: '4' } });
  });

  it.each(['mount', 'entry'])('tells when Vault deletes by itself what is written, by the setting of the %s', async (where) => {
    const mount = `${prefix}-ends`;
    const place: KvPlace = { mount, path: where, version: 2 };
    const path = where === 'mount' ? `${mount}/config` : `${mount}/metadata/${where}`;
    const day = 86_400_000;
    if (!(await readSecretsMount(client, mount))) await execute({ kind: 'MountKV', mount, version: 2, description: '' });
    await writeKv(client, place, { a: '1' }, 0);
    await vault.request('POST', path, { delete_version_after: '24h' });
    // what was written before stays
    expect(await readKv(client, place)).toEqual({ casVersion: 1, data: { a: '1' } });
    await writeKv(client, place, { a: '2' }, 1);
    const { lifetime } = await readKv(client, place);
    expect(lifetime && lifetime.to - lifetime.from).toBe(day);
    await vault.request('POST', path, { delete_version_after: '0s' });
    expect((await readKv(client, place)).lifetime).toEqual(lifetime);
    await vault.request('PUT', `${mount}/undelete/${where}`, { versions: [2] });
    expect(await readKv(client, place)).toEqual({ casVersion: 2, data: { a: '2' } });

    await vault.request('POST', path, { delete_version_after: '1s' });
    await writeKv(client, place, { a: '3' }, 2);
    await waitFor('the version to vanish', async () => (await readKv(client, place)).data === undefined);
    expect(await readKv(client, place)).toEqual({ casVersion: 3, data: undefined });
    await vault.request('POST', path, { delete_version_after: '0s' });
    await writeKv(client, place, { a: '4' }, 3);
    expect(await readKv(client, place)).toEqual({ casVersion: 4, data: { a: '4' } });
  }); // prettier-ignore

  it('gives out a root’s name once', async () => {
    const name = generationName(desired.identity, 'root', 1);
    await execute({ kind: 'GenerateRoot', mount: `${prefix}-pki`, name, spec: desired.root, existingKey: false });
    await expect(generateRoot(client, `${prefix}-pki`, name, desired.root, false)).rejects.toMatchObject({
      kind: 'InUse',
    });
    expect((await readPki(client, `${prefix}-pki`)).issuers).toHaveLength(1);
  });

  it('issues step by step, and refuses before signing what the mount would cut', async () => {
    const mount = `${prefix}-ca`;
    const name = generationName(desired.identity, 'intermediate', 1);
    await execute({
      kind: 'StageKey',
      generation: 1,
      spec: desired.intermediate,
      cas: 0,
      reason: 'test',
      reuse: undefined,
      before: [],
      request: undefined,
    });
    const importKey = { kind: 'ImportKey', mount, from: 'staging', generation: 1, name } as const;
    await execute(importKey);
    await expect(execute(importKey)).rejects.toMatchObject({ kind: 'InUse' });

    const [root] = (await readPki(client, `${prefix}-pki`)).issuers;
    const [imported] = (await readPki(client, mount)).keys;
    const sign = {
      kind: 'SignIntermediate',
      generation: 1,
      keyId: imported?.id ?? '',
      spec: desired.intermediate,
      rootIssuerId: root?.id ?? '',
      notAfter: undefined,
    } as const;
    await execute({ kind: 'TuneMount', mount: `${prefix}-pki`, maxLeaseTtl: 3600, description: desired.mark });
    await expect(execute(sign)).rejects.toMatchObject({ problem: { reason: 'TTLTruncated' } });
    expect((await readPki(client, mount)).issuers).toEqual([]);
    expect(
      ((await vault.request('LIST', `${prefix}-pki/certs`)).body as { data: { keys: string[] } }).data.keys,
    ).toHaveLength(1);

    await execute({
      kind: 'TuneMount',
      mount: `${prefix}-pki`,
      maxLeaseTtl: desired.root.ttl,
      description: desired.mark,
    });
    await execute(sign);
    const pki = await readPki(client, mount);
    expect(pki.issuers).toHaveLength(1);
    expect(pki.issuers[0]).toMatchObject({
      keyName: name,
      certificate: { maxPathLength: 0, isCa: true, keyType: 'ec', keyBits: 256 },
    });
    expect(pki.issuers[0]?.certificate.subject.organization).toBe('Acme\\, Inc.');
    const publish = {
      kind: 'PublishLive',
      from: 'staging',
      generation: 1,
      issuerId: pki.issuers[0]?.id ?? '',
      roots: [root?.certificate.pem ?? ''],
      lists: [],
      keyRef: '',
      mark: desired.mark,
      cas: 0,
    } as const;
    await execute(publish);
    await expect(execute(publish)).rejects.toMatchObject({ kind: 'CheckAndSet' });
  });

  it('reads an absent issuer as absent, and says which object of a write is gone', async () => {
    const mount = `${prefix}-pki`;
    const absent = '00000000-0000-0000-0000-000000000000';
    await execute({ kind: 'MountPKI', mount: `${prefix}-empty`, maxLeaseTtl: 3600, description: '' });
    for (const ref of [absent, 'absent', 'default']) {
      const of = ref === 'default' ? `${prefix}-empty` : mount;
      expect({ ref, chain: await readChain(client, of, ref) }).toEqual({ ref, chain: [] });
      expect(await readList(client, of, ref)).toBeUndefined();
    }
    const [root] = (await readPki(client, mount)).issuers;
    expect(await readChain(client, mount, root?.id ?? '')).toEqual([root?.certificate.pem]);
    expect(await readChain(client, mount, generationName(desired.identity, 'root', 1))).toHaveLength(1);
    const csr = await csrForKey(client, mount, root?.keyId ?? '', desired.intermediate);
    const gone = { kind: 'CheckAndSet', message: expect.stringContaining('does not exist any more') };
    await expect(addIssuingUsage(client, mount, absent, [])).rejects.toMatchObject(gone);
    await expect(setDefaultIssuer(client, mount, absent)).rejects.toMatchObject(gone);
    await expect(csrForKey(client, mount, absent, desired.intermediate)).rejects.toMatchObject(gone);
    const sign = (issuer: string) => signIntermediate(client, mount, issuer, csr, desired.intermediate, undefined);
    await expect(sign(absent)).rejects.toMatchObject(gone);
    // the server fails for another cause: the issuer exists
    const issuer = `${mount}/issuer/${root?.id}`;
    await vault.request('POST', issuer, { usage: 'read-only' });
    await expect(sign(root?.id ?? '')).rejects.toMatchObject({ status: 500, kind: 'Server' });
    await vault.request('POST', issuer, { usage: 'read-only,issuing-certificates,crl-signing,ocsp-signing' });
  });

  it('keeps two versions of the live entry, and never collects what is published', async () => {
    const place: KvPlace = { mount: `${prefix}-kv`, path: 'deep/path', version: 2 };
    await execute({ kind: 'LimitVersions', versions: 2 });
    expect(await readVersions(client, place)).toMatchObject({ limit: 2, older: [] });
    const { issuers, keys } = await readPki(client, `${prefix}-ca`);
    const all = { issuerIds: issuers.map((i) => i.id), keyIds: keys.map((k) => k.id) };
    await expect(execute({ kind: 'Collect', mount: `${prefix}-ca`, ...all, what: 'all' })).rejects.toMatchObject({
      kind: 'CheckAndSet',
    });
    expect((await readPki(client, `${prefix}-ca`)).issuers).toHaveLength(1);
  });

  it('tells what a root has signed, and what else lies in the key store', async () => {
    const signed = await readSigned(client, `${prefix}-pki`, Date.now());
    expect(signed?.map((certificate) => certificate.selfIssued).sort()).toEqual([false, true]);
    expect(await readSigned(client, `${prefix}-pki`, Date.parse('2100-01-01'))).toEqual([]);
    expect(await listKv(client, `${prefix}-kv`, 2)).toEqual(['cas', 'deep/']);
  });

  it('destroys its own versions of an entry and leaves those before', async () => {
    const place: KvPlace = { mount: `${prefix}-kv`, path: 'stood', version: 2 };
    for (let version = 0; version < 4; version += 1)
      await writeKv(client, place, { number: String(version + 1) }, version);
    await destroyAfter(client, place, 2, 4);
    expect(await readKv(client, place)).toEqual({ casVersion: 4, data: undefined });
    expect((await readVersions(client, place)).older).toEqual([1, 2]);
  });

  it('deletes an entry only while it is ours', async () => {
    await execute({ kind: 'DeleteEntry', entry: 'live' });
    expect(await readKv(client, { mount: `${prefix}-kv`, path: 'deep/path', version: 2 })).toEqual({
      casVersion: 0,
      data: undefined,
    });
    await writeKv(client, { mount: `${prefix}-kv`, path: 'deep/path', version: 2 }, { theirs: 'x' }, 0);
    await expect(execute({ kind: 'DeleteEntry', entry: 'live' })).rejects.toMatchObject({ kind: 'CheckAndSet' });
  });
});
