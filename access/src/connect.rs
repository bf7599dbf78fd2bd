//! One connection for commands that are not part of the load.
//!
//! Opened by samplers, by whoever asks for the cluster's layout, and by the coordinator. Law: it is made the same way as
//! those of the load lanes: same login, same encryption.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::{Credentials, Tls, explain, is_socket_path, tls};

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// To take the connection and the login.
    pub connect: Duration,
    /// To answer a command.
    pub answer: Duration,
}

/// Opens a connection.
///
/// # Errors
/// The client's error when the server does not answer in time, cannot be trusted or refuses the login.
pub async fn connect(
    host: &str,
    port: u16,
    credentials: &Credentials,
    limits: Limits,
) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limits.connect))
        .set_response_timeout(Some(limits.answer));
    if let Some(tls) = &credentials.tls
        && !is_socket_path(host)
    {
        let opened = encrypted(host, port, credentials, tls, config);
        return match tokio::time::timeout(limits.connect, opened).await {
            Ok(opened) => opened,
            Err(_) => Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))),
        };
    }
    let address = if is_socket_path(host) {
        ConnectionAddr::Unix(host.into())
    } else {
        ConnectionAddr::Tcp(host.to_owned(), port)
    };
    let info = address.into_connection_info()?.set_redis_settings(login(credentials));
    Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
}

async fn encrypted(
    host: &str,
    port: u16,
    credentials: &Credentials,
    tls: &Tls,
    config: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, RedisError> {
    let io = |e: std::io::Error| RedisError::from(std::io::Error::new(e.kind(), explain(&e)));
    let name = tls::server_name(host).map_err(|e| io(std::io::Error::other(e)))?;
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let mut stream = TlsConnector::from(tls.config()).connect(name, stream).await.map_err(io)?;
    // A server that wants a certificate says so only after the handshake, and the client library would not repeat its
    // words: whatever it answers to a first question, it lets us speak.
    stream.write_all(b"PING\r\n").await.map_err(io)?;
    while stream.read_u8().await.map_err(io)? != b'\n' {}
    let (connection, driver) =
        MultiplexedConnection::new_with_config(&login(credentials), stream, config).await?;
    // It ends when the last handle of the connection is gone.
    tokio::spawn(driver);
    Ok(connection)
}

fn login(credentials: &Credentials) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default();
    if let Some(user) = &credentials.username {
        settings = settings.set_username(user);
    }
    // The client logs in only with a password; a user without one (nopass) takes any, also an empty one.
    let nameless = credentials.username.is_none();
    match credentials.password.as_deref().or((!nameless).then_some("")) {
        Some(password) => settings.set_password(password),
        None => settings,
    }
}

/// Whether nobody listens at a place.
pub async fn is_down(host: &str, port: u16) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    if is_socket_path(host) {
        return UnixStream::connect(host)
            .await
            .is_err_and(|e| matches!(e.kind(), ConnectionRefused | NotFound));
    }
    TcpStream::connect((host, port)).await.is_err_and(|e| e.kind() == ConnectionRefused)
}
