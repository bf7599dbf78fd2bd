//! A loaded cluster as files, from which another one starts with the same data.
//!
//! Written when a run on servers of vst's own is over (`--save-target`), read when the next one starts its own
//! (`--restore-target`); `prefill: reuse` then judges what is there. Law: `target.json` is written last and names every
//! file with its size, so a folder that was not written to its end is not taken for a whole one. That the content is
//! what was written, the server sees by the checksum that ends an RDB file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, cmd};
use serde::{Deserialize, Serialize};

use super::{LocalCluster, LocalClusterError, LocalNode};

/// What a server writes its data to.
pub(super) const DUMP: &str = "dump.rdb";
const MANIFEST: &str = "target.json";
/// A server may take long to write what fits into its memory.
const WRITTEN_WITHIN: Duration = Duration::from_secs(6 * 3_600);

/// What a folder holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Whether the servers were a cluster, whose slots were dealt evenly in the order of the files.
    pub cluster: bool,
    /// One file for each primary.
    pub files: Vec<SavedFile>,
    /// Version of vst that saved them.
    pub vst: String,
    #[serde(skip)]
    folder: PathBuf,
}

/// The data of one primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFile {
    /// Its name in the folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

impl Saved {
    /// Reads what a folder holds, and looks whether all of it is there.
    ///
    /// # Errors
    /// [`LocalClusterError::Saved`].
    pub fn open(folder: &Path) -> Result<Self, LocalClusterError> {
        let refused = |why: String| LocalClusterError::Saved { folder: folder.to_owned(), why };
        let text = std::fs::read_to_string(folder.join(MANIFEST))
            .map_err(|e| refused(format!("{MANIFEST}: {e}")))?;
        let saved: Self = serde_json::from_str(&text).map_err(|e| refused(format!("{MANIFEST}: {e}")))?;
        for file in &saved.files {
            let path = folder.join(&file.name);
            let found = std::fs::metadata(&path).map_err(|e| refused(format!("{}: {e}", file.name)))?.len();
            if found != file.bytes {
                return Err(refused(format!("{} has {found} bytes, {} were saved", file.name, file.bytes)));
            }
        }
        Ok(Self { folder: folder.to_owned(), ..saved })
    }

    /// How many primaries there were.
    ///
    /// # Errors
    /// [`LocalClusterError::Saved`] for more than there can be.
    pub fn primaries(&self) -> Result<u16, LocalClusterError> {
        u16::try_from(self.files.len()).map_err(|_| LocalClusterError::Saved {
            folder: self.folder.clone(),
            why: format!("{} files are more than there are primaries", self.files.len()),
        })
    }

    /// Puts each primary's data where its server will look for it.
    pub(super) fn place<'a>(&self, folders: impl Iterator<Item = &'a Path>) -> Result<(), LocalClusterError> {
        for (file, folder) in self.files.iter().zip(folders) {
            let from = self.folder.join(&file.name);
            copy(&from, &folder.join(DUMP))?;
        }
        Ok(())
    }
}

impl LocalCluster {
    /// Writes the data of every primary into a folder, which is made or has to be empty. Gives the bytes written.
    ///
    /// # Errors
    /// [`LocalClusterError::Saved`] for a folder that cannot be used, [`LocalClusterError::NotSaved`].
    pub async fn save(&self, folder: &Path) -> Result<u64, LocalClusterError> {
        Self::can_save(folder)?;
        let refused = |why: String| LocalClusterError::Saved { folder: folder.to_owned(), why };
        std::fs::create_dir_all(folder).map_err(|e| refused(e.to_string()))?;
        let mut files = Vec::new();
        for (n, node) in self.nodes().iter().filter(|node| node.replica_of.is_none()).enumerate() {
            write(node).await?;
            let name = format!("primary-{n}.rdb");
            let from = self.folder().join(format!("node-{}", node.port)).join(DUMP);
            let bytes = copy(&from, &folder.join(&name))?;
            files.push(SavedFile { name, bytes });
        }
        let bytes = files.iter().map(|file| file.bytes).sum();
        let vst = String::from(env!("CARGO_PKG_VERSION"));
        let saved = Saved { cluster: self.is_cluster, files, vst, folder: PathBuf::new() };
        let text = serde_json::to_string_pretty(&saved).map_err(|e| refused(e.to_string()))?;
        std::fs::write(folder.join(MANIFEST), text).map_err(|e| refused(e.to_string()))?;
        Ok(bytes)
    }

    /// Whether a folder can be saved into: it is not there or has nothing in it.
    ///
    /// # Errors
    /// [`LocalClusterError::Saved`] where it cannot.
    pub fn can_save(folder: &Path) -> Result<(), LocalClusterError> {
        let refused = |why: String| Err(LocalClusterError::Saved { folder: folder.to_owned(), why });
        match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(()),
            Ok(false) => {
                refused(String::from("it is not empty; name another folder or remove what is in it"))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => refused(e.to_string()),
        }
    }
}

/// Lets a server write its data.
async fn write(node: &LocalNode) -> Result<(), LocalClusterError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(5)))
        .set_response_timeout(Some(WRITTEN_WITHIN));
    let asked = async {
        let address = ConnectionAddr::Tcp("127.0.0.1".to_owned(), node.port);
        let client = Client::open(address.into_connection_info()?)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        cmd("SAVE").exec_async(&mut connection).await
    };
    asked.await.map_err(|source| LocalClusterError::NotSaved { address: node.address.clone(), source })
}

fn copy(from: &Path, to: &Path) -> Result<u64, LocalClusterError> {
    std::fs::copy(from, to).map_err(|source| LocalClusterError::Copy {
        from: from.to_owned(),
        to: to.to_owned(),
        source,
    })
}
