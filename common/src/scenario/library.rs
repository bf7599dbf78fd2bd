//! The scenarios that come with vst, in the order in which they are listed.
//!
//! Each is a file under `scenarios/`, embedded as it stands. Read by name by the command line. Law (a test): every file
//! of the folder is here, under the name that it has, and passes the check.

macro_rules! library {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/", $name, ".yaml")))),*]
    };
}

/// Name and text of each.
pub const LIBRARY: &[(&str, &str)] = library![
    "quick"
    "continuous_growth"
    "grow_shrink_grow"
    "memory_fragmentation_analysis"
    "high_velocity_ingestion"
    "vector_expansion_memory_impact"
    "memory_leak_detection"
    "production_simulation"
    "index_rebuild_memory_pattern"
    "cluster_memory_distribution"
    "scale_1m"
    "scale_10m"
    "scale_100m"
    "scale_1b"
    "scale_clients"
    "scale_hnsw_grid"
    "scale_flat"
    "scale_soak"
    "kv"
    "read_heavy"
    "write_heavy"
    "truly_balanced"
    "read_only"
    "write_only"
    "cache_pattern"
    "session_store"
    "message_queue"
    "leaderboard"
    "event_stream"
    "social_graph"
    "counter_pattern"
    "time_series"
    "object_store"
    "tag_system"
    "queue_drain"
    "pub_sub_pattern"
    "hot_keys"
    "write_storm"
    "read_storm"
    "mixed_storm"
    "range_operations_heavy"
    "large_hash_access"
    "op_set"
    "op_get"
    "op_incr"
    "op_append"
    "op_strlen"
    "op_mget"
    "op_mset"
    "op_lpush"
    "op_rpush"
    "op_lpop"
    "op_rpop"
    "op_llen"
    "op_lrange"
    "op_lindex"
    "op_hset"
    "op_hget"
    "op_hgetall"
    "op_hmget"
    "op_hlen"
    "op_hdel"
    "op_hincrby"
    "op_sadd"
    "op_srem"
    "op_smembers"
    "op_sismember"
    "op_scard"
    "op_spop"
    "op_srandmember"
    "op_zadd"
    "op_zrem"
    "op_zrange"
    "op_zrangebyscore"
    "op_zscore"
    "op_zrank"
    "op_zcard"
    "op_zcount"
    "op_xadd"
    "op_xlen"
    "op_xrange"
    "op_xrevrange"
    "op_xread"
    "op_xdel"
    "op_xtrim"
    "op_del"
    "op_exists"
    "op_type"
    "op_expire"
    "op_ttl"
    "latency_by_size"
    "throughput_by_connections"
    "bytes_per_key"
];

/// The text of a scenario that comes with vst.
#[must_use]
pub fn text_of(name: &str) -> Option<&'static str> {
    LIBRARY.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests;
