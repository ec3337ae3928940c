//! Signatures on kernel modules: a key that lives as long as one build.
//!
//! The kernel's own build does the same: it makes a key, signs its modules and throws the key away.
//! What stays is the certificate, which a bundle's `db` must hold, because a kernel takes modules
//! from its own builder and from `db`.

use std::{fs, path::Path};

use zeroize::Zeroizing;

use crate::{
    WorkError,
    tool::{self, Scratch},
};

/// What the kernel looks for at a module's end (`include/linux/module_signature.h`).
pub(in crate::stage) const MARK: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature` without its length: only PKEY_ID_PKCS7 is set.
const PKCS7: [u8; 8] = [0, 0, 2, 0, 0, 0, 0, 0];
/// Code signing, and the kernel's own purpose "modules only", which keeps shim from starting a
/// program that is signed with it. EDK2 looks at neither.
const PURPOSE: &str = "extendedKeyUsage=codeSigning,1.3.6.1.4.1.2312.16.1.2";

/// A key for the modules of one build. Its private half is never in a file.
pub(in crate::stage) struct Signer {
    key: Zeroizing<Vec<u8>>,
    certificate: Vec<u8>,
    scratch: Scratch,
}

impl Signer {
    /// Makes a key (RSA-3072) and its certificate.
    pub(in crate::stage) fn generate() -> Result<Self, WorkError> {
        let mut command = tool::command("openssl");
        command.args([
            "genpkey",
            "-quiet",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:3072",
        ]);
        let key = Zeroizing::new(tool::run("openssl", "making a key for kernel modules", command)?);
        let mut command = tool::command("openssl");
        command.args([
            "req",
            "-x509",
            "-new",
            "-key",
            "/dev/stdin",
            "-sha256",
            "-days",
            "7300",
            "-outform",
            "DER",
        ]);
        command.args([
            "-subj",
            "/CN=flare-cvm kernel modules/",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]);
        command.args(["-addext", "keyUsage=critical,digitalSignature", "-addext", PURPOSE]);
        let certificate =
            tool::run_with_input("openssl", "certifying the modules' key", command, &key)?;
        let scratch = Scratch::new()?;
        let path = scratch.join("signer.der");
        fs::write(&path, &certificate).map_err(WorkError::io("write", &path))?;
        Ok(Self { key, certificate, scratch })
    }

    /// The certificate, in DER.
    pub(in crate::stage) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The module followed by its signature, as the kernel's `scripts/sign-file` writes it.
    pub(in crate::stage) fn sign(&self, module: &Path) -> Result<Vec<u8>, WorkError> {
        let mut command = tool::command("openssl");
        command.args([
            "cms",
            "-sign",
            "-binary",
            "-noattr",
            "-nocerts",
            "-nosmimecap",
            "-md",
            "sha256",
        ]);
        command
            .args(["-inkey", "/dev/stdin", "-outform", "DER", "-signer"])
            .arg(self.scratch.join("signer.der"));
        command.arg("-in").arg(module);
        let signature =
            tool::run_with_input("openssl", "signing a kernel module", command, &self.key)?;
        let mut signed = fs::read(module).map_err(WorkError::io("read", module))?;
        signed.extend(&signature);
        signed.extend(PKCS7);
        signed.extend((signature.len() as u32).to_be_bytes());
        signed.extend(MARK);
        Ok(signed)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// OpenSSL's own verdict on a signed module, taken apart by the kernel's rules.
    fn verifies(signed: &[u8], certificate: &[u8]) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let rest = signed.strip_suffix(MARK).unwrap();
        let (rest, header) = rest.split_last_chunk::<12>().unwrap();
        assert_eq!(header[..8], PKCS7);
        let length = u32::from_be_bytes(header[8..].try_into().unwrap()) as usize;
        let (module, signature) = rest.split_at(rest.len() - length);
        for (name, bytes) in
            [("module", module), ("signature", signature), ("signer.der", certificate)]
        {
            fs::write(path(name), bytes).unwrap();
        }
        let pem = Command::new("openssl")
            .args(["x509", "-inform", "DER", "-in"])
            .arg(path("signer.der"))
            .output()
            .unwrap();
        fs::write(path("signer.pem"), pem.stdout).unwrap();
        let mut command = Command::new("openssl");
        command.args([
            "cms",
            "-verify",
            "-binary",
            "-inform",
            "DER",
            "-purpose",
            "any",
            "-out",
            "/dev/null",
            "-in",
        ]);
        command.arg(path("signature")).arg("-content").arg(path("module"));
        command.arg("-certfile").arg(path("signer.pem")).arg("-CAfile").arg(path("signer.pem"));
        command.output().unwrap().status.success()
    }

    #[test]
    fn openssl_verifies_what_was_signed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let module = dir.path().join("nvidia.ko");
        fs::write(&module, vec![7; 300_000]).unwrap();
        let signer = Signer::generate().unwrap();
        let signed = signer.sign(&module).unwrap();
        assert!(verifies(&signed, signer.certificate()));
        assert_eq!(signed[..300_000], vec![7; 300_000]);

        let mut changed = signed.clone();
        changed[1000] ^= 1;
        assert!(!verifies(&changed, signer.certificate()), "one byte of the module");
        let other = Signer::generate().unwrap();
        assert!(!verifies(&signed, other.certificate()), "another build's key");
        assert_ne!(signer.certificate(), other.certificate());
    }

    #[test]
    fn the_certificate_certifies_nobody_else() {
        let mut command = Command::new("openssl");
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("c"), Signer::generate().unwrap().certificate()).unwrap();
        let text = command
            .args(["x509", "-inform", "DER", "-noout", "-text", "-in"])
            .arg(dir.path().join("c"));
        let text = String::from_utf8(text.output().unwrap().stdout).unwrap();
        for expected in
            ["CA:FALSE", "Digital Signature", "Code Signing, 1.3.6.1.4.1.2312.16.1.2", "(3072 bit)"]
        {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }
}
