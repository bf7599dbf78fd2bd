//! An authority of a test's own, and certificates that it signed, as PEM files.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::process::Command;

/// The files `ca.pem`, `NAME.pem` and `NAME.key` of one authority.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// A new authority, and a certificate for each name; all are good for this machine.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn new(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let write =
            |name: String, text: String| std::fs::write(folder.path().join(name), text).expect("written");
        write(String::from("ca.pem"), authority.pem());
        for name in names {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new([String::from("127.0.0.1"), String::from("localhost")])
                .expect("names");
            params.distinguished_name.push(DnType::CommonName, *name);
            let certificate = params.signed_by(&key, &authority).expect("signed");
            write(format!("{name}.pem"), certificate.pem());
            write(format!("{name}.key"), key.serialize_pem());
        }
        Self { folder }
    }

    /// A file of it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The authority.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// Certificate and key of a name.
    #[must_use]
    pub fn of(&self, name: &str) -> [PathBuf; 2] {
        [self.file(&format!("{name}.pem")), self.file(&format!("{name}.key"))]
    }

    /// Lets a process of the fleet show a certificate, and trust this authority.
    pub fn dress(&self, command: &mut Command, name: &str) {
        self.dress_trusting(command, name, &self.authority());
    }

    /// The same, but it trusts another one.
    pub fn dress_trusting(&self, command: &mut Command, name: &str, authority: &Path) {
        let [certificate, key] = self.of(name);
        command.arg("--tls-ca").arg(authority).arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
    }
}
