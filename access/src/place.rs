//! Where a node is, as one text: `host:port`, or the path of a Unix socket.

/// Whether a host is the path of a Unix socket.
#[must_use]
pub fn is_socket_path(host: &str) -> bool {
    host.starts_with('/')
}

/// `host:port`, `[v6]:port`, or the path of a socket, whose port says nothing.
#[must_use]
pub fn join(host: &str, port: u16) -> String {
    if is_socket_path(host) {
        host.to_owned()
    } else if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The parts of what [`join`] gives, and of a server's own `v6:port`.
#[must_use]
pub fn split(address: &str) -> Option<(&str, u16)> {
    if is_socket_path(address) {
        return Some((address, 0));
    }
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_can_be_split() {
        for (host, port) in [("h", 7000), ("10.0.0.1", 1), ("::1", 7000), ("/run/v.sock", 0)] {
            assert_eq!(split(&join(host, port)), Some((host, port)));
        }
        assert_eq!(split("::1:7000"), Some(("::1", 7000)));
        assert_eq!(split("h"), None);
        assert_eq!(join("/run/v.sock", 0), "/run/v.sock");
    }
}
