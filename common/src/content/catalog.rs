//! The commands that a scenario may name without a template, and what their keys are filled with before.
//!
//! A new one is a line here; a template in a scenario needs none. Law (a test): each is accepted by the template's
//! reader, its space has a filling, and a real server executes it without an error.

use super::miss::Miss;

/// A command by name.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// In capitals.
    pub name: &'static str,
    /// What it sends.
    pub template: &'static str,
    /// The keys that it works on.
    pub space: &'static str,
    /// How its reply says that there was nothing.
    pub miss: Miss,
}

const fn of(space: &'static str, name: &'static str, template: &'static str, miss: Miss) -> BuiltIn {
    BuiltIn { name, template, space, miss }
}

/// All of them.
pub const COMMANDS: &[BuiltIn] = &[
    of("string", "SET", "SET {key} {value}", Miss::Nil),
    of("string", "GET", "GET {key}", Miss::Nil),
    of("counter", "INCR", "INCR {key}", Miss::Nil),
    of("string", "APPEND", "APPEND {key} {value}", Miss::Nil),
    of("string", "STRLEN", "STRLEN {key}", Miss::Zero),
    of("string", "MGET", "MGET {keys 10}", Miss::AnyNil),
    of("string", "MSET", "MSET {pairs 10}", Miss::Nil),
    of("list", "LPUSH", "LPUSH {key} {value}", Miss::Nil),
    of("list", "RPUSH", "RPUSH {key} {value}", Miss::Nil),
    of("list", "LPOP", "LPOP {key}", Miss::Nil),
    of("list", "RPOP", "RPOP {key}", Miss::Nil),
    of("list", "LLEN", "LLEN {key}", Miss::Zero),
    of("list", "LRANGE", "LRANGE {key} 0 9", Miss::Empty),
    of("list", "LINDEX", "LINDEX {key} 0", Miss::Nil),
    of("hash", "HSET", "HSET {key} {field} {value}", Miss::Nil),
    of("hash", "HGET", "HGET {key} {field}", Miss::Nil),
    of("hash", "HGETALL", "HGETALL {key}", Miss::Empty),
    of("hash", "HMGET", "HMGET {key} {fields 3}", Miss::AnyNil),
    of("hash", "HLEN", "HLEN {key}", Miss::Zero),
    of("hash", "HDEL", "HDEL {key} {field}", Miss::Zero),
    of("hash", "HINCRBY", "HINCRBY {key} count {int 1 100}", Miss::Nil),
    of("set", "SADD", "SADD {key} {member}", Miss::Nil),
    of("set", "SREM", "SREM {key} {member}", Miss::Zero),
    of("set", "SMEMBERS", "SMEMBERS {key}", Miss::Empty),
    of("set", "SISMEMBER", "SISMEMBER {key} {member}", Miss::Zero),
    of("set", "SCARD", "SCARD {key}", Miss::Zero),
    of("set", "SPOP", "SPOP {key}", Miss::Nil),
    of("set", "SRANDMEMBER", "SRANDMEMBER {key}", Miss::Nil),
    of("zset", "ZADD", "ZADD {key} {int 0 1000} {member}", Miss::Nil),
    of("zset", "ZREM", "ZREM {key} {member}", Miss::Zero),
    of("zset", "ZRANGE", "ZRANGE {key} 0 9", Miss::Empty),
    of("zset", "ZRANGEBYSCORE", "ZRANGEBYSCORE {key} 0 1000 LIMIT 0 10", Miss::Empty),
    of("zset", "ZSCORE", "ZSCORE {key} {member}", Miss::Nil),
    of("zset", "ZRANK", "ZRANK {key} {member}", Miss::Nil),
    of("zset", "ZCARD", "ZCARD {key}", Miss::Zero),
    of("zset", "ZCOUNT", "ZCOUNT {key} 0 1000", Miss::Zero),
    of("stream", "XADD", "XADD {key} * data {value}", Miss::Nil),
    of("stream", "XLEN", "XLEN {key}", Miss::Zero),
    of("stream", "XRANGE", "XRANGE {key} - + COUNT 10", Miss::Empty),
    of("stream", "XREVRANGE", "XREVRANGE {key} + - COUNT 10", Miss::Empty),
    of("stream", "XREAD", "XREAD COUNT 10 STREAMS {key} 0", Miss::Empty),
    of("stream", "XDEL", "XDEL {key} 0-1", Miss::Zero),
    of("stream", "XTRIM", "XTRIM {key} MAXLEN 1000", Miss::Nil),
    of("string", "DEL", "DEL {key}", Miss::Zero),
    of("string", "EXISTS", "EXISTS {key}", Miss::Zero),
    of("string", "TYPE", "TYPE {key}", Miss::NoType),
    of("string", "EXPIRE", "EXPIRE {key} 3600", Miss::Zero),
    of("string", "TTL", "TTL {key}", Miss::NoKey),
];

/// Commands that change nothing: a replica can answer them, and does not replay them.
const READS: &[&str] = &[
    "BITCOUNT",
    "EXISTS",
    "FT.SEARCH",
    "GET",
    "GETBIT",
    "GETRANGE",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HKEYS",
    "HLEN",
    "HMGET",
    "HSTRLEN",
    "HVALS",
    "JSON.GET",
    "JSON.MGET",
    "LINDEX",
    "LLEN",
    "LRANGE",
    "MGET",
    "PTTL",
    "SCARD",
    "SINTER",
    "SISMEMBER",
    "SMEMBERS",
    "SMISMEMBER",
    "SRANDMEMBER",
    "STRLEN",
    "SUNION",
    "TTL",
    "TYPE",
    "XLEN",
    "XRANGE",
    "XREAD",
    "XREVRANGE",
    "ZCARD",
    "ZCOUNT",
    "ZMSCORE",
    "ZRANGE",
    "ZRANGEBYSCORE",
    "ZRANK",
    "ZREVRANGE",
    "ZREVRANK",
    "ZSCORE",
];

/// Whether a command changes nothing, by its name in any spelling. One that is not known may change something.
#[must_use]
pub fn only_reads(command: &str) -> bool {
    READS.iter().any(|name| name.eq_ignore_ascii_case(command))
}

/// Keys of commands that are not listed.
pub const OTHER_SPACE: &str = "key";

/// Every space with the command that writes each of its keys once.
pub const FILLINGS: &[(&str, &str)] = &[
    ("string", "SET {key} {value}"),
    ("counter", "SET {key} {int 0 1000000}"),
    ("list", "RPUSH {key} {values}"),
    ("hash", "HSET {key} count 0 {entries}"),
    ("set", "SADD {key} {members}"),
    ("zset", "ZADD {key} {scored}"),
    // One entry of a known name, so that XDEL can name it.
    ("stream", "XADD {key} 0-1 data {value}"),
];

/// A command by its name in capitals.
#[must_use]
pub fn built_in(name: &str) -> Option<&'static BuiltIn> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// The keys that a command works on.
#[must_use]
pub fn space_of(name: &str) -> &'static str {
    built_in(name).map_or(OTHER_SPACE, |command| command.space)
}

/// The command that writes each key of a space once; `None` for a space whose contents only the scenario knows.
#[must_use]
pub fn filling(space: &str) -> Option<&'static str> {
    FILLINGS.iter().find(|(known, _)| *known == space).map(|(_, template)| *template)
}
