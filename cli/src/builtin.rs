//! What is built in, so that `vst run quick` works wherever the binary is: the scenario library and the small real
//! data set it uses.

use std::fs;
use std::io;
use std::path::PathBuf;

/// The first 10,000 BIGANN vectors (CC0), 100 queries and their exact neighbours.
const DATA: [(&str, &[u8]); 3] = [
    ("base.u8bin", include_bytes!("../../data/bigann10k/base.u8bin")),
    ("query.u8bin", include_bytes!("../../data/bigann10k/query.u8bin")),
    ("groundtruth.bin", include_bytes!("../../data/bigann10k/groundtruth.bin")),
];

/// Writes the built-in data to the user's cache, unless it is there, and gives the folder that a built-in scenario's
/// relative paths start from.
pub(crate) fn unpack() -> io::Result<PathBuf> {
    let root = cache_folder();
    let data = root.join("data").join("bigann10k");
    fs::create_dir_all(&data)?;
    fs::create_dir_all(root.join("scenarios"))?;
    for (name, bytes) in DATA {
        let path = data.join(name);
        let same = fs::metadata(&path).is_ok_and(|m| m.len() == vst_common::count::len(bytes.len()));
        if !same {
            // Written beside and moved, so that two runs that start at once never see half a file.
            let mut part = tempfile::NamedTempFile::new_in(&data)?;
            io::Write::write_all(&mut part, bytes)?;
            part.persist(&path).map_err(|e| e.error)?;
        }
    }
    Ok(root.join("scenarios"))
}

fn cache_folder() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(home)
        .unwrap_or_else(std::env::temp_dir)
        .join("vst")
}
