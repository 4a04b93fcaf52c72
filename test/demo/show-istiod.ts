/** With `--istiod`: starts the real istiod on the rendered files and requests a workload certificate. */
import { X509Certificate } from 'node:crypto';
import { createNamespace, requestToken, startIstiod } from '../stack/index.ts';
import type { Cleanup } from '../support/cleanup.ts';
import { blocks, makeCsr, opensslVerify } from '../support/certificates.ts';
import { namespace } from './names.ts';
import type { Servers } from './servers.ts';
import { describeCertificate, type Rendered } from './show-files.ts';
import { vaultRoot } from './show-vault.ts';
import { heading, note, print, step, table, title } from './terminal.ts';

const caLine = 'Use local CA certificate';
const workload = { namespace: 'bookinfo', account: 'productpage' } as const;

type Istiod = Awaited<ReturnType<typeof startIstiod>>;

const show = (certificate: X509Certificate): void => {
  const name = certificate.subjectAltName;
  table(
    [...describeCertificate(certificate), ...(name === undefined ? [] : [['names', name]])].map(([a = '', b = '']) => [
      `  ${a}`,
      b,
    ]),
  );
};

async function showServed(istiod: Istiod, { files }: Rendered, root: X509Certificate): Promise<void> {
  heading(`What istiod serves at its secure port (127.0.0.1:${istiod.securePort}, 15012 in a cluster)`);
  const [served = '', ...rest] = await istiod.peerCertificates();
  show(new X509Certificate(served));
  await opensslVerify(served, rest.join('\n'), root.toString());
  const issuer = rest[0] === undefined ? undefined : new X509Certificate(rest[0]);
  if (issuer?.fingerprint256 !== blocks(files.cert)[0]?.fingerprint256)
    throw new Error('istiod serves a certificate that is not of the CA in ca-cert.pem');
  step("openssl verify: it chains by the certificate of ca-cert.pem to Vault's root: OK");
}

async function showWorkload(istiod: Istiod, { kube }: Servers, root: X509Certificate): Promise<void> {
  heading(`A workload certificate, for service account ${workload.namespace}/${workload.account}`);
  await createNamespace(kube, workload.namespace);
  const token = await requestToken(kube, workload.namespace, workload.account, ['istio-ca']);
  const [leaf = '', ...rest] = await istiod.createCertificate({
    csrPem: await makeCsr(),
    token,
    validitySeconds: 86_400,
  });
  show(new X509Certificate(leaf));
  const sentRoot = blocks(rest.pop() ?? '')[0];
  await opensslVerify(leaf, rest.join('\n'), root.toString());
  if (sentRoot?.fingerprint256 !== root.fingerprint256) throw new Error("istiod hands out a root that is not Vault's");
  step("openssl verify: it chains to Vault's root, which istiod hands out with it: OK");
}

export async function showIstiod(servers: Servers, rendered: Rendered, cleanup: Cleanup): Promise<Istiod> {
  title('The real istiod with these files');
  const root = await vaultRoot(servers.vault);
  const istiod = cleanup.add(await startIstiod({ kube: servers.kube, rootCaDir: rendered.dir, namespace }));
  step('waiting for istiod to be ready');
  await istiod.ready();
  const line = istiod
    .log()
    .split('\n')
    .find((one) => one.includes(caLine));
  if (line === undefined)
    throw new Error(`istiod does not log "${caLine}":\n${istiod.log().split('\n').slice(-10).join('\n')}`);
  step('istiod is ready; it logs:');
  print(`             ${line.replaceAll('\t', '  ').replaceAll(rendered.dir, '/vault/secrets')}`);
  if (line.includes(rendered.dir)) note('(its folder of this run is shown as /vault/secrets)');
  await showServed(istiod, rendered, root);
  await showWorkload(istiod, servers, root);
  return istiod;
}
