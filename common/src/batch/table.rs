//! (being written)
/// x
pub enum Table {}
/// x
pub enum Error {}
/// x
pub struct Stamp;
