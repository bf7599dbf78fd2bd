//! (being written)
/// x
pub struct Scanner; /// x
pub struct ScanError;
