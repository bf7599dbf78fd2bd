//! The BIGANN sample of the repository, for tests: real vectors, real queries, published neighbours.

use std::path::Path;

use super::{DatasetView, Rows, open_store, resolve};
use crate::ground_truth::GroundTruth;
use crate::ranges::RowRange;

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn url(name: &str) -> url::Url {
    resolve(name, Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/bigann10k"))).unwrap()
}

pub(crate) async fn open(url: url::Url) -> Result<DatasetView, super::Error> {
    let (store, path) = open_store(&url)?;
    DatasetView::open(store, path, url).await
}

fn whole(name: &str) -> Rows {
    block_on(async {
        let view = open(url(name)).await.unwrap();
        view.read(RowRange { start: 0, end: view.manifest().rows }).await.unwrap()
    })
}

pub(crate) fn base() -> Vec<Vec<f32>> {
    whole("base.u8bin").iter().collect()
}

pub(crate) fn queries() -> Vec<Vec<f32>> {
    whole("query.u8bin").iter().collect()
}

pub(crate) fn truth() -> GroundTruth {
    block_on(async {
        let url = url("groundtruth.bin");
        let (store, path) = open_store(&url).unwrap();
        GroundTruth::open(store, path, url).await.unwrap()
    })
}
