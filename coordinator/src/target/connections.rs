//! Who else is connected to the target: the connections of a worker that is lost are closed before its work is given
//! to others.
//!
//! Fed by the run with the name that load lanes give their connections. Law: afterwards no connection with that name
//! is left on any node that answers, and a node that runs but does not answer is an error.

use futures::future::try_join_all;
use redis::cmd;
use vst_common::count;

use super::{Target, TargetError, TargetNode};

impl Target {
    /// Closes every connection that is called `name`, on all nodes there are and were. Gives how many there were. A node that refuses to
    /// be connected to has none: its process is gone, and with it its connections.
    ///
    /// # Errors
    /// [`TargetError`] where a node answers in time neither yes nor no.
    pub async fn close_connections(&self, name: &str) -> Result<u64, TargetError> {
        let now = self.now();
        let before = self.nodes.iter().filter(|old| !now.iter().any(|node| node.address() == old.address()));
        let closed = try_join_all(now.iter().chain(before).map(|node| self.close_on(node, name))).await?;
        Ok(closed.iter().sum())
    }

    async fn close_on(&self, node: &TargetNode, name: &str) -> Result<u64, TargetError> {
        if vst_access::is_down(&node.host, node.port).await {
            return Ok(0);
        }
        let link = self.link(&node.address());
        let mut closed: u64 = 0;
        // A connection that is opened while the others are closed is found the next time.
        loop {
            let list: String = link.ask(cmd("CLIENT").arg("LIST")).await?;
            let found = named(&list, name);
            if found.is_empty() {
                return Ok(closed);
            }
            for id in &found {
                // One that ended meanwhile is no fault: KILL by filter counts, it does not complain.
                let _: u64 = link.ask(cmd("CLIENT").arg("KILL").arg("ID").arg(*id)).await?;
            }
            closed = closed.saturating_add(count::len(found.len()));
        }
    }
}

/// Ids of the connections called `name` in the answer to `CLIENT LIST`.
fn named<'a>(list: &'a str, name: &str) -> Vec<&'a str> {
    let field = |line: &'a str, field: &str| {
        line.split(' ').find_map(|pair| pair.strip_prefix(field)?.strip_prefix('='))
    };
    list.lines()
        .filter(|line| field(line, "name") == Some(name))
        .filter_map(|line| field(line, "id"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn only_connections_with_exactly_that_name_are_meant() {
        let list = "id=3 addr=127.0.0.1:1 laddr=127.0.0.1:7000 fd=8 name=r/w/1 age=1 lib-name=r/w/1\n\
                    id=4 addr=127.0.0.1:2 fd=9 name=r/w/11 age=1\n\
                    id=5 addr=127.0.0.1:3 fd=10 name= age=1 user=r/w/1\n\
                    id=61 addr=127.0.0.1:4 fd=11 name=r/w/1 age=0\n";
        assert_eq!(named(list, "r/w/1"), ["3", "61"]);
        assert!(named(list, "r/w/2").is_empty());
    }
}
