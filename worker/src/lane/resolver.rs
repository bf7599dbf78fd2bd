//! Where is a host? Asked off the lane: a name server that does not answer must not stop the load on other nodes.
//!
//! Fed by `lane` with the hosts of its connections, old and new, which asks again until the answer is there. An address that
//! is written out is its own answer and costs nothing. Law: asking never waits.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};

/// What is known of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its first address.
    Address(SocketAddr),
    /// It is being asked for.
    Pending,
    /// It has none, and why. The next question asks the name server again.
    Nowhere(String),
}

type Place = (String, u16);
type Answer = (Place, Result<SocketAddr, String>);
/// How a name is looked up; waits as long as it likes.
type Lookup = fn(&str, u16) -> Result<SocketAddr, String>;

/// Looks names up on threads of its own.
#[derive(Debug)]
pub(super) struct Resolver {
    lookup: Lookup,
    /// `None` while a thread asks.
    known: BTreeMap<Place, Option<Result<SocketAddr, String>>>,
    answers: (Sender<Answer>, Receiver<Answer>),
}

impl Resolver {
    /// One that knows nothing yet.
    pub(super) fn new() -> Self {
        Self { lookup: system_lookup, known: BTreeMap::new(), answers: channel() }
    }

    /// Where a host is, as far as it is known now.
    pub(super) fn find(&mut self, host: &str, port: u16) -> Found {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Found::Address(SocketAddr::new(address, port));
        }
        while let Ok((place, answer)) = self.answers.1.try_recv() {
            self.known.insert(place, Some(answer));
        }
        let place = (host.to_owned(), port);
        match self.known.get(&place) {
            Some(Some(Ok(address))) => return Found::Address(*address),
            Some(Some(Err(_))) => {
                if let Some(Some(Err(reason))) = self.known.remove(&place) {
                    return Found::Nowhere(reason);
                }
            }
            Some(None) => return Found::Pending,
            None => {}
        }
        let (sender, lookup, asked) = (self.answers.0.clone(), self.lookup, place.clone());
        let ask = move || {
            let answer = lookup(&asked.0, asked.1);
            // Nobody listens when the lane has left.
            let _ = sender.send((asked, answer));
        };
        // A name server can keep a thread for half a minute, so each name has its own; there are as many as names.
        match std::thread::Builder::new().name(String::from("resolver")).spawn(ask) {
            Ok(_) => {
                self.known.insert(place, None);
                Found::Pending
            }
            Err(error) => Found::Nowhere(format!("no thread to look up `{host}`: {error}")),
        }
    }

    /// A connection to this host failed: it may have moved, so the next question asks again.
    pub(super) fn forget(&mut self, host: &str, port: u16) {
        let place = (host.to_owned(), port);
        if self.known.get(&place).is_some_and(Option::is_some) {
            self.known.remove(&place);
        }
    }
}

fn system_lookup(host: &str, port: u16) -> Result<SocketAddr, String> {
    match (host, port).to_socket_addrs() {
        Ok(mut found) => found.next().ok_or_else(|| format!("host `{host}` has no address")),
        Err(error) => Err(format!("host `{host}` has no address: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn resolver(lookup: Lookup) -> Resolver {
        Resolver { lookup, ..Resolver::new() }
    }

    fn wait_for(resolver: &mut Resolver, host: &str) -> Found {
        for _ in 0..2_000 {
            match resolver.find(host, 7000) {
                Found::Pending => std::thread::sleep(Duration::from_millis(10)),
                found => return found,
            }
        }
        panic!("no answer for `{host}`");
    }

    #[test]
    fn a_slow_name_server_keeps_nobody_waiting() {
        let mut resolver = resolver(|_, port| {
            std::thread::sleep(Duration::from_secs(1));
            Ok(SocketAddr::from(([10, 0, 0, 1], port)))
        });
        let before = vst_common::clock::mono_ns();
        assert_eq!(resolver.find("slow", 7000), Found::Pending);
        assert_eq!(resolver.find("slow", 7000), Found::Pending, "asked once, not twice");
        assert!(vst_common::clock::mono_ns() - before < 900_000_000, "asking never waits");
        assert_eq!(wait_for(&mut resolver, "slow"), Found::Address(SocketAddr::from(([10, 0, 0, 1], 7000))));
        resolver.forget("slow", 7000);
        assert_eq!(resolver.find("slow", 7000), Found::Pending, "after a failure it is asked again");
    }

    #[test]
    fn a_written_address_asks_nobody_and_a_name_without_one_says_so_once() {
        let mut resolver = resolver(|host, _| Err(format!("host `{host}` has no address")));
        let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 7000));
        assert_eq!(resolver.find("::1", 7000), Found::Address(v6));
        let nowhere = Found::Nowhere(String::from("host `nowhere` has no address"));
        assert_eq!(wait_for(&mut resolver, "nowhere"), nowhere);
        assert_eq!(resolver.find("nowhere", 7000), Found::Pending);
    }
}
