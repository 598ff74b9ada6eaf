/** Certificates for tests, by OpenSSL: an authority of our own, a server of an address, and clients by name. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Certificate {
  certificate: string;
  key: string;
}

/** Longer than any test, shorter than anybody would rely on. */
const DAYS = '2';

/** Where in a folder the certificate of the authority lies. */
export const authorityIn = (folder: string): string => join(folder, 'ca.crt');

/** Where that of a name does, with its key. */
export const certificateIn = (folder: string, name: string): Certificate => ({
  certificate: join(folder, `${name}.crt`),
  key: join(folder, `${name}.key`),
});

/** Made in `folder`. `server.at`: what the server is reached at, as in `DNS:localhost` or `IP:10.0.0.1`. Clients show their name as the certificate's. */
export function makeCertificates(folder: string, server: { name: string; at: string }, clients: readonly string[]): void {
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const extensions: [string, string][] = [
    [server.name, `subjectAltName=${server.at}\nextendedKeyUsage=serverAuth\n`],
    ...clients.map((name): [string, string] => [name, 'extendedKeyUsage=clientAuth\n']),
  ];
  openssl('req', '-x509', ...key, '-days', DAYS, '-keyout', 'ca.key', '-out', 'ca.crt', '-subj', '/CN=test authority');
  for (const [name, extension] of extensions) {
    openssl('req', ...key, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
    writeFileSync(join(folder, `${name}.ext`), extension);
    const by = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-extfile', `${name}.ext`];
    openssl('x509', '-req', '-in', `${name}.csr`, ...by, '-days', DAYS, '-out', `${name}.crt`);
  }
}
