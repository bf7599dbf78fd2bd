//! A connection to an etcd cluster, and the single calls.

use std::str::FromStr;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use crate::rpc::auth_client::AuthClient;
use crate::rpc::kv_client::KvClient;
use crate::rpc::lease_client::LeaseClient;
use crate::rpc::{self, watch_client::WatchClient};

/// A call that etcd does not answer for this long has failed.
const CALL: Duration = Duration::from_secs(5);
/// A connection that does not answer a ping for this long is closed.
const PING: Duration = Duration::from_secs(5);

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is to be written has no JSON form.
    #[error("registration cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// An endpoint is not an address.
    #[error(
        "etcd endpoint `{endpoint}` is not usable: {reason}; expected http://host:2379 or https://host:2379"
    )]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificates cannot be used.
    #[error("the certificates for etcd cannot be used: {0}")]
    Tls(tonic::transport::Error),
    /// The call failed.
    #[error("etcd at {endpoints}: {call} failed: {message}")]
    Call {
        /// Whom was asked.
        endpoints: String,
        /// What was asked.
        call: &'static str,
        /// What came back; never holds a password.
        message: String,
        /// Whether nobody answered, so that asking again later may help.
        away: bool,
    },
}

impl Error {
    /// Whether etcd could not be reached: it may be about to start.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Call { away: true, .. })
    }
}

/// Addresses of one etcd cluster, at least one, all `http` or all `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints(Vec<String>);

impl FromStr for Endpoints {
    type Err = Error;

    /// Reads a comma-separated list; an endpoint without a scheme is `http`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let read = |endpoint: &str| {
            let bad = |reason: &str| Error::Endpoint { endpoint: endpoint.into(), reason: reason.into() };
            let full = if endpoint.contains("://") { endpoint.into() } else { format!("http://{endpoint}") };
            let url = url::Url::parse(&full).map_err(|e| bad(&e.to_string()))?;
            if !matches!(url.scheme(), "http" | "https") {
                return Err(bad("the scheme is neither http nor https"));
            }
            if url.host_str().is_none_or(str::is_empty) {
                return Err(bad("it names no host"));
            }
            if !url.username().is_empty() || url.password().is_some() {
                // Said without the endpoint, which holds the password.
                return Err(Error::Endpoint {
                    endpoint: url.host_str().unwrap_or_default().into(),
                    reason: "user and password come from VST_ETCD_USER and VST_ETCD_PASSWORD".into(),
                });
            }
            let port = url.port().unwrap_or(2379);
            Ok(format!("{}://{}:{port}", url.scheme(), url.host_str().unwrap_or_default()))
        };
        let all = text.split(',').map(str::trim).filter(|e| !e.is_empty()).map(read);
        let all = all.collect::<Result<Vec<_>, _>>()?;
        if all.is_empty() {
            return Err(Error::Endpoint { endpoint: text.into(), reason: "it is empty".into() });
        }
        let secure = |e: &String| e.starts_with("https://");
        if all.iter().any(secure) && !all.iter().all(secure) {
            return Err(Error::Endpoint { endpoint: text.into(), reason: "http and https are mixed".into() });
        }
        Ok(Self(all))
    }
}

impl std::fmt::Display for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Certificates, PEM. Without an authority the system's are not used: etcd clusters have their own.
#[derive(Clone, Default)]
pub struct Tls {
    /// Signs etcd's certificate.
    pub authority: Vec<u8>,
    /// Our own certificate and key, where etcd asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

/// Calls one etcd cluster. Cheap to clone; connects when first used and again when a connection ended.
#[derive(Clone)]
pub struct Client {
    endpoints: String,
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares connections; with a user it asks for a token, which is the only time the password is sent.
    ///
    /// # Errors
    /// [`Error`] for bad certificates, or when etcd refuses or does not answer the log-in.
    pub async fn new(
        endpoints: &Endpoints,
        tls: Option<&Tls>,
        user: Option<(&str, &str)>,
    ) -> Result<Self, Error> {
        let mut prepared = Vec::new();
        for endpoint in &endpoints.0 {
            let bad = |e: tonic::transport::Error| Error::Endpoint {
                endpoint: endpoint.clone(),
                reason: e.to_string(),
            };
            let mut one = Endpoint::from_shared(endpoint.clone())
                .map_err(bad)?
                .connect_timeout(CALL)
                .http2_keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .keep_alive_while_idle(true);
            if let Some(tls) = tls.filter(|_| endpoint.starts_with("https://")) {
                let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.authority));
                if let Some((certificate, key)) = &tls.identity {
                    config = config.identity(Identity::from_pem(certificate, key));
                }
                one = one.tls_config(config).map_err(Error::Tls)?;
            }
            prepared.push(one);
        }
        let channel = match prepared.as_slice() {
            [only] => only.connect_lazy(),
            _ => Channel::balance_list(prepared.into_iter()),
        };
        let mut client = Self { endpoints: endpoints.to_string(), channel, token: None };
        if let Some((name, password)) = user {
            let request = rpc::AuthenticateRequest { name: name.into(), password: password.into() };
            let mut auth = AuthClient::new(client.channel.clone());
            let answer = client.within("log-in", auth.authenticate(request)).await?;
            client.token = Some(answer.token.parse().map_err(|_| Error::Call {
                endpoints: client.endpoints.clone(),
                call: "log-in",
                message: "the token is not a header value".into(),
                away: false,
            })?);
        }
        Ok(client)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let request = rpc::RangeRequest { key: key.into(), ..Default::default() };
        let mut kv = KvClient::new(self.channel.clone());
        let answer = self.within("reading a key", kv.range(self.with_token(request))).await?;
        Ok(answer.kvs.into_iter().next().map(|pair| pair.value))
    }

    /// All keys that begin with a prefix, in order, and the revision at which that was so.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub async fn list(&self, prefix: &str) -> Result<(Vec<(String, Vec<u8>)>, i64), Error> {
        let request = rpc::RangeRequest {
            key: prefix.into(),
            range_end: after_prefix(prefix.as_bytes()),
            ..Default::default()
        };
        let mut kv = KvClient::new(self.channel.clone());
        let answer = self.within("listing keys", kv.range(self.with_token(request))).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        let pair = |p: rpc::KeyValue| (String::from_utf8_lossy(&p.key).into_owned(), p.value);
        Ok((answer.kvs.into_iter().map(pair).collect(), revision))
    }

    /// A new lease, seconds to live. Gives its number.
    pub(crate) async fn grant(&self, seconds: i64) -> Result<i64, Error> {
        let mut leases = LeaseClient::new(self.channel.clone());
        let request = rpc::LeaseGrantRequest { ttl: seconds, id: 0 };
        let answer = self.within("granting a lease", leases.lease_grant(self.with_token(request))).await?;
        if answer.id == 0 {
            return Err(self.failed("granting a lease", answer.error));
        }
        Ok(answer.id)
    }

    pub(crate) async fn put(&self, key: &str, value: &[u8], lease: i64) -> Result<(), Error> {
        let request = rpc::PutRequest { key: key.into(), value: value.into(), lease };
        let mut kv = KvClient::new(self.channel.clone());
        self.within("writing a key", kv.put(self.with_token(request))).await.map(drop)
    }

    pub(crate) async fn revoke(&self, lease: i64) -> Result<(), Error> {
        let mut leases = LeaseClient::new(self.channel.clone());
        let request = rpc::LeaseRevokeRequest { id: lease };
        self.within("ending a lease", leases.lease_revoke(self.with_token(request))).await.map(drop)
    }

    /// `host:port` of the first endpoint.
    pub(crate) fn first_host(&self) -> String {
        let first = self.endpoints.split(',').next().unwrap_or_default();
        first.split_once("://").map_or(first, |(_, host)| host).to_owned()
    }

    pub(crate) fn leases(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    pub(crate) fn watches(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone())
    }

    pub(crate) fn with_token<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    pub(crate) fn failed(&self, call: &'static str, message: impl Into<String>) -> Error {
        Error::Call { endpoints: self.endpoints.clone(), call, message: message.into(), away: false }
    }

    fn away(&self, call: &'static str, message: String) -> Error {
        Error::Call { endpoints: self.endpoints.clone(), call, message, away: true }
    }

    pub(crate) async fn within<T>(
        &self,
        call: &'static str,
        asked: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(CALL, asked).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if status.code() == Code::Unavailable => Err(self.away(call, explain(&status))),
            Ok(Err(status)) => Err(self.failed(call, explain(&status))),
            Err(_) => Err(self.away(call, format!("no answer for {} s; is it running?", CALL.as_secs()))),
        }
    }
}

/// A status with its innermost cause, which is what tells a refused connection from a bad certificate.
pub(crate) fn explain(status: &Status) -> String {
    let mut cause = std::error::Error::source(status);
    let mut text = status.message().to_owned();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// The first key behind all that begin with `prefix`; etcd's "\0" (no end) where there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_get_a_scheme_and_a_port_and_never_show_a_password() {
        let read = |text: &str| text.parse::<Endpoints>().map(|e| e.to_string());
        assert_eq!(read("a:1, http://b").unwrap(), "http://a:1,http://b:2379");
        for bad in ["", " , ", "ftp://a:1", "http://a:1,https://b:1", "http://"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let error = read("http://me:hidden@a:1").unwrap_err().to_string();
        assert!(error.contains("VST_ETCD_PASSWORD") && !error.contains("hidden"), "{error}");
    }

    #[test]
    fn a_prefix_ends_before_the_first_key_that_does_not_begin_with_it() {
        assert_eq!(after_prefix(b"ab"), b"ac");
        assert_eq!(after_prefix(b"a\xff"), b"b");
        assert_eq!(after_prefix(b"\xff\xff"), b"\0");
        for (key, within) in [("ab", true), ("ab/z", true), ("ac", false), ("aa", false)] {
            let inside =
                key.as_bytes() >= b"ab".as_slice() && key.as_bytes() < after_prefix(b"ab").as_slice();
            assert_eq!(inside, within, "{key}");
        }
    }
}
