//! One node's connection: made when needed, made anew when it broke.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind, Value,
    from_redis_value,
};
use tokio::sync::Mutex;
use vst_access::{Limits, TargetUrl};
use vst_common::resp::Frame;

use super::TargetError;
use super::audit::Audit;

/// A server that does not answer within this is taken to be away.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Commands of administration may wait behind a long one; dropping a large index takes a while.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A connection to one node, shared by everybody who asks it something. A command that meets a connection which the
/// server has closed meanwhile is sent a second time; what goes through here must bear that.
#[derive(Debug)]
pub(super) struct Link {
    address: String,
    url: TargetUrl,
    connection: Mutex<Option<MultiplexedConnection>>,
    audit: Arc<Audit>,
}

/// The links to all nodes of a target.
#[derive(Debug)]
pub(super) struct Links {
    url: TargetUrl,
    by_address: std::sync::Mutex<HashMap<String, Arc<Link>>>,
    audit: Arc<Audit>,
}

impl Links {
    /// None yet; each is made with these credentials when it is first asked for.
    pub(super) fn new(url: TargetUrl) -> Self {
        Self { url, by_address: std::sync::Mutex::default(), audit: Arc::default() }
    }

    /// What has been sent over all of them.
    pub(super) fn audit(&self) -> &Audit {
        &self.audit
    }

    pub(super) fn url(&self) -> &TargetUrl {
        &self.url
    }

    /// The link to `host:port`.
    pub(super) fn to(&self, address: &str) -> Arc<Link> {
        let mut links = self.by_address.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let make = || Arc::new(Link::new(address.to_owned(), self.url.clone(), Arc::clone(&self.audit)));
        Arc::clone(links.entry(address.to_owned()).or_insert_with(make))
    }
}

/// What goes over a link at once.
#[derive(Clone, Copy)]
enum Sent<'a> {
    One(&'a Cmd),
    Together(&'a Pipeline),
}

impl Link {
    fn new(address: String, url: TargetUrl, audit: Arc<Audit>) -> Self {
        Self { address, url, connection: Mutex::new(None), audit }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a command and converts its reply.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, TargetError> {
        let value = self.value(command).await?;
        from_redis_value(value).map_err(|e| self.unexpected(command, e.to_string()))
    }

    /// Sends a command and gives its reply as it came.
    pub(super) async fn value(&self, command: &Cmd) -> Result<Value, TargetError> {
        let mut values = self.send(&command_name(command), Sent::One(command)).await?;
        Ok(values.pop().unwrap_or(Value::Nil))
    }

    /// Sends commands together; each has its own reply, an error included.
    pub(super) async fn values(&self, pipeline: &Pipeline) -> Result<Vec<Value>, TargetError> {
        let name = pipeline.cmd_iter().next().map(command_name).unwrap_or_default();
        self.send(&name, Sent::Together(pipeline)).await
    }

    /// An error that says the reply makes no sense.
    pub(super) fn unexpected(&self, command: &Cmd, what: impl Into<String>) -> TargetError {
        TargetError::Reply {
            address: self.address.clone(),
            command: command_name(command),
            what: what.into(),
        }
    }

    async fn send(&self, name: &str, sent: Sent<'_>) -> Result<Vec<Value>, TargetError> {
        let mut is_retry = false;
        loop {
            let (mut connection, is_new) = self.connection().await?;
            let answer = match sent {
                Sent::One(command) => connection
                    .send_packed_command(command)
                    .await
                    .and_then(Value::extract_error)
                    .map(|value| vec![value]),
                Sent::Together(pipeline) => {
                    connection.send_packed_commands(pipeline, 0, pipeline.len()).await
                }
            };
            match answer {
                Ok(values) => {
                    self.saw(sent, |n| values.get(n).is_some_and(|value| refusal(value).is_some()));
                    return Ok(values);
                }
                Err(e) if e.is_io_error() || e.is_unrecoverable_error() => {
                    *self.connection.lock().await = None;
                    if is_new || is_retry || e.is_timeout() {
                        // What was sent may have been done.
                        self.saw(sent, |_| false);
                        return Err(self.error(name, e));
                    }
                    is_retry = true;
                }
                Err(e) => {
                    self.saw(sent, |_| true);
                    return Err(self.error(name, e));
                }
            }
        }
    }

    /// Keeps what was sent, and which of it was refused.
    fn saw(&self, sent: Sent<'_>, refused: impl Fn(usize) -> bool) {
        match sent {
            Sent::One(command) => self.audit.saw(&self.address, command, refused(0)),
            Sent::Together(pipeline) => {
                for (n, command) in pipeline.cmd_iter().enumerate() {
                    self.audit.saw(&self.address, command, refused(n));
                }
            }
        }
    }

    /// The connection, and whether it was made just now.
    async fn connection(&self) -> Result<(MultiplexedConnection, bool), TargetError> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = held.as_ref() {
            return Ok((connection.clone(), false));
        }
        let unreachable = |why: String| TargetError::Unreachable { address: self.address.clone(), why };
        let (host, port) = vst_access::split(&self.address)
            .ok_or_else(|| unreachable(String::from("not a host and a port")))?;
        let limits = Limits { connect: CONNECT_WITHIN, answer: ANSWER_WITHIN };
        let attempt = async {
            let mut connection = vst_access::connect(host, port, self.url.credentials(), limits).await?;
            // A server that is stopped accepts connections and answers nothing: only an answer shows that it is there.
            redis::cmd("PING").exec_async(&mut connection).await?;
            RedisResult::Ok(connection)
        };
        let connection = match tokio::time::timeout(CONNECT_WITHIN, attempt).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(e)) if e.is_timeout() => return Err(unreachable(silence())),
            Ok(Err(e)) if e.is_io_error() => return Err(unreachable(e.to_string())),
            Ok(Err(e)) => return Err(self.error("PING", e)),
            Err(_) => return Err(unreachable(silence())),
        };
        *held = Some(connection.clone());
        Ok((connection, true))
    }

    fn error(&self, command: &str, e: RedisError) -> TargetError {
        let address = self.address.clone();
        let is_auth =
            e.kind() == ErrorKind::AuthenticationFailed || matches!(e.code(), Some("NOAUTH" | "WRONGPASS"));
        if is_auth {
            // The client library does not pass the server's words on where the handshake fails.
            let why = server_text(&e).unwrap_or_else(|| String::from("wrong user or password"));
            return TargetError::Auth { address, user: self.url.user().to_owned(), why };
        }
        match server_text(&e) {
            Some(text) => TargetError::Refused { address, command: command.to_owned(), text },
            None => TargetError::Lost { address, command: command.to_owned(), source: e },
        }
    }
}

fn silence() -> String {
    format!("no answer within {} s", CONNECT_WITHIN.as_secs())
}

/// The words of a server's refusal, as it sent them; `None` for every other error.
fn server_text(e: &RedisError) -> Option<String> {
    let code = e.code()?;
    Some(words(code, e.detail(), e.kind() == ErrorKind::Server(ServerErrorKind::ResponseError)))
}

/// The client library takes the first word of an error for its code and gives `ERR` back as a code of its own.
fn words(code: &str, detail: Option<&str>, is_plain: bool) -> String {
    match (detail, is_plain) {
        (Some(detail), true) => detail.to_owned(),
        (Some(detail), false) => format!("{code} {detail}"),
        (None, _) => code.to_owned(),
    }
}

/// The words of a server's refusal inside a pipeline.
pub(super) fn refusal(value: &Value) -> Option<String> {
    match value {
        Value::ServerError(e) => {
            Some(words(e.code(), e.details(), e.kind() == Some(ServerErrorKind::ResponseError)))
        }
        _ => None,
    }
}

/// The command's name, with the subcommand where there is one; never its arguments.
pub(super) fn command_name(command: &Cmd) -> String {
    let mut words = command.args_iter().filter_map(|arg| match arg {
        redis::Arg::Simple(word) => std::str::from_utf8(word).ok(),
        _ => None,
    });
    let name = words.next().unwrap_or_default().to_owned();
    match (name.as_str(), words.next()) {
        ("CLUSTER" | "MODULE" | "CONFIG" | "INFO", Some(word)) => format!("{name} {word}"),
        _ => name,
    }
}

/// A reply as the dialects of `vst_common::search` read it.
pub(super) fn frame(value: &Value) -> Frame<'_> {
    match value {
        Value::Int(n) => Frame::Integer(*n),
        Value::BulkString(bytes) => Frame::Bulk(bytes),
        Value::SimpleString(text) => Frame::Simple(text.as_bytes()),
        Value::Okay => Frame::Simple(b"OK"),
        Value::VerbatimString { text, .. } => Frame::Bulk(text.as_bytes()),
        Value::Double(x) => Frame::Double(*x),
        Value::Boolean(b) => Frame::Boolean(*b),
        Value::Array(items) | Value::Set(items) => Frame::Array(items.iter().map(frame).collect()),
        Value::Push { data, .. } => Frame::Array(data.iter().map(frame).collect()),
        Value::Map(pairs) => {
            Frame::Map(pairs.iter().map(|(key, value)| (frame(key), frame(value))).collect())
        }
        Value::Attribute { data, .. } => frame(data),
        Value::ServerError(e) => Frame::Error(e.details().unwrap_or(e.code()).as_bytes()),
        _ => Frame::Null,
    }
}
