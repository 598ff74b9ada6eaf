/** `ratchet keys`: the Ed25519 key that this machine signs attestations with; made when it is first needed. */
import { Command } from 'commander';
import { signingKey } from '../../artifacts/attestation.ts';
import { print, printJson } from '../output.ts';
import { signingKeyFile } from '../session.ts';

export function keysCommand(): Command {
  return new Command('keys')
    .description('the key that signs attestations here; give its public half to whoever is to check your runs')
    .option('--public', 'only the public key, as PEM, for a file')
    .option('--json', 'as JSON')
    .action(({ public: pem, json }: { public?: boolean; json?: boolean }) => {
      const file = signingKeyFile();
      const { keyid, publicKey } = signingKey(file);
      if (json) printJson({ keyid, publicKey, file });
      else if (pem) process.stdout.write(publicKey);
      else
        print(
          `key id       ${keyid}`,
          `private key  ${file} (only its owner can read it)`,
          `public key   npx ratchet keys --public > ratchet.pub.pem`,
          `check        npx ratchet verify <run> --key ratchet.pub.pem`,
        );
    });
}
