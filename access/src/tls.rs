//! Whom to trust, and who we say we are, on encrypted connections to the target.
//!
//! Read once per process from files that the environment names. Law: a server whose certificate does not verify is not
//! talked to, unless `VST_TARGET_INSECURE=1` says that it may be.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

const CA: &str = "VST_TARGET_CA";
const CERTIFICATE: &str = "VST_TARGET_CERT";
const KEY: &str = "VST_TARGET_KEY";
const INSECURE: &str = "VST_TARGET_INSECURE";

/// Why TLS cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be used.
    #[error("{variable} names `{path}`, which cannot be used: {why}; expected {expected}", path = path.display())]
    File {
        /// The environment variable.
        variable: &'static str,
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// One of certificate and key without the other.
    #[error("{0} is set and {1} is not; a client certificate needs both")]
    Half(&'static str, &'static str),
    /// A word where 0 or 1 is expected.
    #[error("{INSECURE} is `{0}`; write 1 to accept any certificate, or unset it")]
    Flag(String),
    /// Nobody to trust.
    #[error("this machine has no certificate authorities of its own ({0}); name one in {CA}")]
    NoRoots(String),
    /// A certificate or key that does not fit.
    #[error("TLS cannot be set up: {0}")]
    Config(String),
}

/// A way to encrypt connections, shared by all of a process.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ClientConfig>);

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tls {}

impl Tls {
    /// From the files that these variables name.
    ///
    /// # Errors
    /// [`TlsError`], naming the variable.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, TlsError> {
        let set = |name: &'static str| variable(name).filter(|value| !value.is_empty());
        let insecure = match set(INSECURE).as_deref() {
            None | Some("0" | "false") => false,
            Some("1" | "true") => true,
            Some(other) => return Err(TlsError::Flag(other.to_owned())),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = |e: rustls::Error| TlsError::Config(e.to_string());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(config)?;
        let builder = if insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            builder.with_root_certificates(roots(set(CA))?)
        };
        let configured = match (set(CERTIFICATE), set(KEY)) {
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => return Err(TlsError::Half(CERTIFICATE, KEY)),
            (None, Some(_)) => return Err(TlsError::Half(KEY, CERTIFICATE)),
            (Some(chain), Some(key)) => {
                let chain = certificates(CERTIFICATE, chain)?;
                let path = PathBuf::from(key);
                let key = PrivateKeyDer::from_pem_file(&path).map_err(|e| TlsError::File {
                    variable: KEY,
                    path,
                    why: e.to_string(),
                    expected: "a private key in PEM",
                })?;
                builder.with_client_auth_cert(chain, key).map_err(config)?
            }
        };
        Ok(Self(Arc::new(configured)))
    }

    /// A connection that has not begun, to the server that is reached under this name.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn connection(&self, host: &str) -> Result<ClientConnection, rustls::Error> {
        let name = server_name(host).map_err(|e| rustls::Error::General(e.to_string()))?;
        ClientConnection::new(Arc::clone(&self.0), name)
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, rustls::pki_types::InvalidDnsNameError> {
    ServerName::try_from(host.to_owned())
}

/// The words of a failed handshake, with the fix.
#[must_use]
pub fn explain(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    // An authority of the same name as the right one gives a bad signature.
    let fix = if text.contains("UnknownIssuer") || text.contains("BadSignature") {
        format!("; name its certificate authority in {CA}")
    } else if text.contains("CertificateRequired") || text.contains("certificate required") {
        format!("; the server wants a client certificate: name it in {CERTIFICATE} and {KEY}")
    } else if text.contains("corrupt message") || text.contains("InvalidContentType") {
        String::from("; does this port speak TLS?")
    } else if text.contains("peer certificate") {
        String::from("; its certificate has to carry the name or address under which it is reached")
    } else {
        String::new()
    };
    format!("no TLS with the server: {text}{fix}")
}

fn roots(file: Option<String>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in certificates(CA, file.clone())? {
                roots.add(certificate).map_err(|e| TlsError::File {
                    variable: CA,
                    path: PathBuf::from(&file),
                    why: e.to_string(),
                    expected: "certificates of authorities in PEM",
                })?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let why =
                    found.errors.first().map_or_else(|| String::from("none found"), ToString::to_string);
                return Err(TlsError::NoRoots(why));
            }
        }
    }
    Ok(roots)
}

fn certificates(variable: &'static str, file: String) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let path = PathBuf::from(file);
    let unusable =
        |why: String| TlsError::File { variable, path: path.clone(), why, expected: "certificates in PEM" };
    let found: Vec<_> = CertificateDer::pem_file_iter(&path)
        .and_then(Iterator::collect)
        .map_err(|e: rustls::pki_types::pem::Error| unusable(e.to_string()))?;
    if found.is_empty() {
        return Err(unusable(String::from("no certificate in it")));
    }
    Ok(found)
}

/// Takes every certificate: for a server whose owner has no authority, and who said so.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_names_its_variable() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec![String::from("localhost")]).unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        std::fs::write(path("cert"), made.cert.pem()).unwrap();
        std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("empty"), "").unwrap();
        let tls = |pairs: &[(&str, String)]| {
            let pairs: Vec<(String, String)> =
                pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
            Tls::from_variables(&move |name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
        };
        assert!(tls(&[(CA, path("cert"))]).is_ok());
        assert!(tls(&[(INSECURE, String::from("1"))]).is_ok());
        assert!(tls(&[(CA, path("cert")), (CERTIFICATE, path("cert")), (KEY, path("key"))]).is_ok());
        for (pairs, named) in [
            (vec![(CA, path("absent"))], CA),
            (vec![(CA, path("empty"))], CA),
            (vec![(CA, path("key"))], CA),
            (vec![(CA, path("cert")), (CERTIFICATE, path("cert"))], KEY),
            (vec![(CA, path("cert")), (KEY, path("key"))], CERTIFICATE),
            (vec![(CA, path("cert")), (CERTIFICATE, path("cert")), (KEY, path("cert"))], KEY),
            (vec![(INSECURE, String::from("yes, please"))], INSECURE),
        ] {
            let error = tls(&pairs).unwrap_err().to_string();
            assert!(error.contains(named), "{pairs:?}: {error}");
        }
    }
}
