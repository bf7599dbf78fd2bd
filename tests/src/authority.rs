//! A certificate authority of a test's own, and what it has signed.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

/// Files of an authority: `ca.pem`, `server.pem` and `server.key` for 127.0.0.1, `client.pem` and `client.key`.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one, which nobody trusts yet.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("vst-ca-").tempdir().expect("a folder");
        let key = || KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, key()).expect("signed by itself");
        let write =
            |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("written");
        write("ca.pem", authority.pem());
        for (who, name) in [("server", "127.0.0.1"), ("client", "vst")] {
            let key = key();
            let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
            let signed = params.signed_by(&key, &authority).expect("signed");
            write(&format!("{who}.pem"), signed.pem());
            write(&format!("{who}.key"), key.serialize_pem());
        }
        Self { folder }
    }

    /// The path of one of its files.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        path(&self.folder.path().join(name))
    }
}

fn path(path: &Path) -> String {
    path.to_str().expect("text").to_owned()
}
