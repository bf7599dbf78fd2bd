//! The same rows in every format, as files made byte by byte.

use super::*;

/// A data set, the files that hold it and the reference that names it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) reference: String,
    pub(super) files: Vec<(String, Vec<u8>)>,
    pub(super) rows: u64,
    pub(super) dims: u32,
    pub(super) element: Element,
    pub(super) body: Vec<u8>,
}

impl Stored {
    pub(super) fn row_bytes(&self) -> usize {
        count::index(u64::from(self.dims) * self.element.bytes())
    }
}

const KINDS: [&str; 25] = [
    "fbin",
    "u8bin",
    "i8bin",
    "ibin",
    "fvecs",
    "bvecs",
    "ivecs",
    "truth",
    "npy1 f64",
    "npy2 f16",
    "npy1 u8",
    "decdb f32",
    "decdb f16",
    "decdb queries",
    "decdb truth",
    "yaml",
    "yaml queries",
    "yaml truth",
    "vkv 0",
    "vkv 1",
    "vkv 2",
    "parquet list",
    "parquet fixed",
    "fvecs.gz",
    "u8bin.zst",
];

pub(super) fn element_of(kind: &str) -> Element {
    match kind.split([' ', '.']).next_back().unwrap() {
        "u8bin" | "bvecs" | "u8" => Element::U8,
        "i8bin" | "1" => Element::I8,
        "ibin" | "ivecs" => Element::I32,
        "truth" if kind == "decdb truth" => Element::I64,
        "truth" => Element::U32,
        "f16" => Element::F16,
        "f64" | "2" => Element::F64,
        _ if kind.starts_with("u8bin") => Element::U8,
        _ => Element::F32,
    }
}

/// Writes each format by its description, without the code that reads it.
pub(super) fn write(kind: &str, rows: u64, dims: u32, element: Element, body: &[u8]) -> Stored {
    let row_bytes = count::index(u64::from(dims) * element.bytes());
    let row = |i: u64| &body[count::index(i) * row_bytes..(count::index(i) + 1) * row_bytes];
    let n = u32::try_from(rows).unwrap();
    let big_ann = || [&n.to_le_bytes()[..], &dims.to_le_bytes(), body].concat();
    let vecs = || (0..rows).flat_map(|i| [&dims.to_le_bytes()[..], row(i)].concat()).collect::<Vec<u8>>();
    let one = |name: &str, content: Vec<u8>| (name.to_owned(), vec![(name.to_owned(), content)]);
    let (reference, files) = match kind {
        "fbin" | "u8bin" | "i8bin" | "ibin" => one(&format!("v.{kind}"), big_ann()),
        "fvecs" | "bvecs" | "ivecs" => one(&format!("v.{kind}"), vecs()),
        "truth" => one("t.bin", [big_ann(), vec![1; body.len()]].concat()),
        "npy1 f64" | "npy1 u8" => {
            let descr = if element == Element::U8 { "|u1" } else { "<f8" };
            let text =
                format!("{{\"descr\": \"{descr}\", \"fortran_order\": False, \"shape\": ({rows},{dims})}}\n");
            let length = u16::try_from(text.len()).unwrap();
            let head = [b"\x93NUMPY\x01\x00", &length.to_le_bytes()[..], text.as_bytes()].concat();
            one("v.npy", [&head[..], body].concat())
        }
        "npy2 f16" => {
            let text =
                format!("{{'shape': ({rows}, {dims}), 'fortran_order': False, 'descr': '<f2', }}   \n");
            let length = u32::try_from(text.len()).unwrap();
            let head = [b"\x93NUMPY\x02\x00", &length.to_le_bytes()[..], text.as_bytes()].concat();
            one("v.npy", [&head[..], body].concat())
        }
        "decdb f32" | "decdb f16" | "decdb queries" | "decdb truth" => {
            let padded = row_bytes.div_ceil(64) * 64;
            let mut head = vec![0; 4096];
            head[..4].copy_from_slice(&0xDECD_B001_u32.to_le_bytes());
            head[4] = 1;
            head[265] = u8::from(element == Element::F16);
            let is_truth = kind == "decdb truth";
            head[268..272].copy_from_slice(&(if is_truth { 3 } else { dims }).to_le_bytes());
            head[272..280].copy_from_slice(&rows.to_le_bytes());
            head[280..288].copy_from_slice(&rows.to_le_bytes());
            head[288..292].copy_from_slice(&dims.to_le_bytes());
            let at = |i: u64| 4096 + i * rows * count::len(padded);
            for (i, offset) in [(0, 296), (1, 304), (2, 312)] {
                head[offset..offset + 8].copy_from_slice(&at(i).to_le_bytes());
            }
            let packed: Vec<u8> =
                (0..rows).flat_map(|i| [row(i), &vec![0xEE; padded - row_bytes][..]].concat()).collect();
            let noise = vec![0x55; packed.len()];
            let section = kind.split(' ').next_back().unwrap();
            let (name, content) = match section {
                "queries" => ("q.bin#queries", [head, noise, packed].concat()),
                "truth" => {
                    // The truth's rows are packed; the sections before it are of three dimensions of f32.
                    let before = count::index(rows) * 64 * 2;
                    head[312..320].copy_from_slice(&count::len(4096 + before).to_le_bytes());
                    ("q.bin#ground_truth", [&head[..], &vec![9; before], body].concat())
                }
                _ => ("v.bin", [head, packed].concat()),
            };
            (name.to_owned(), vec![(name.split('#').next().unwrap().to_owned(), content)])
        }
        "yaml" | "yaml queries" | "yaml truth" => {
            let (dims_said, depth) = if kind == "yaml truth" { (2, dims) } else { (dims, 1) };
            let yaml = format!(
                "version: 1\nmetadata: {{name: x}}\nrecord:\n  fields:\n    - {{name: tag, type: tag, length: variable, max_bytes: 3}}\n    \
                 - {{name: emb, type: vector, dimensions: {dims_said}}}\n    - {{name: price, type: numeric}}\nsections:\n  \
                 records: {{count: {rows}}}\n  keys: {{present: true, max_bytes: 5}}\n  queries: {{present: true, count: {rows}, \
                 query_fields: [emb, price]}}\n  ground_truth: {{present: true, neighbors_per_query: {depth}, id_type: u32}}\n"
            );
            let vector_bytes = count::index(u64::from(dims_said) * 4);
            let wanted = |section: &str| kind == section;
            let noise = vec![7; vector_bytes];
            let mut data = Vec::new();
            for i in 0..rows {
                let vector = if wanted("yaml") { row(i) } else { &noise };
                data.extend([&[1; 7][..], vector, &[2; 8]].concat());
            }
            data.extend(vec![3; count::index(rows) * 5]);
            for i in 0..rows {
                let vector = if wanted("yaml queries") { row(i) } else { &noise };
                data.extend([vector, &[4; 8]].concat());
            }
            data.extend(if wanted("yaml truth") { body.to_vec() } else { vec![5; count::index(rows) * 4] });
            let section = match kind {
                "yaml queries" => "#queries",
                "yaml truth" => "#ground_truth",
                _ => "",
            };
            (format!("d.yaml{section}"), vec![("d.yaml".into(), yaml.into_bytes()), ("d.bin".into(), data)])
        }
        "vkv 0" | "vkv 1" | "vkv 2" => {
            let number: u8 = kind.split(' ').next_back().unwrap().parse().unwrap();
            let code = match element {
                Element::F32 => 0,
                Element::F64 => 1,
                Element::I8 => 2,
                _ => 3,
            };
            let mut file = [
                b"VKV\x01",
                &rows.to_le_bytes()[..],
                &dims.to_le_bytes(),
                &[code, number],
                &7_u32.to_le_bytes(),
            ]
            .concat();
            file.resize(64, 0);
            for (index, start) in (0..rows).step_by(7).enumerate() {
                let end = rows.min(start + 7);
                let mut block = Vec::new();
                for i in start..end {
                    let key = format!("k{}", i * i);
                    block.extend(u16::try_from(key.len()).unwrap().to_le_bytes());
                    block.extend(key.as_bytes());
                    block.extend(row(i));
                }
                let packed = match number {
                    0 => block.clone(),
                    1 => zstd::bulk::compress(&block, 1).unwrap(),
                    _ => lz4_flex::block::compress(&block),
                };
                for word in [
                    u32::try_from(index).unwrap(),
                    u32::try_from(end - start).unwrap(),
                    u32::try_from(packed.len()).unwrap(),
                    u32::try_from(block.len()).unwrap(),
                ] {
                    file.extend(word.to_le_bytes());
                }
                file.extend(packed);
            }
            one("v.vkv", file)
        }
        "parquet list" | "parquet fixed" => {
            one("v.parquet", parquet_file(rows, dims, body, kind == "parquet fixed"))
        }
        "fvecs.gz" => {
            // Two members, as a parallel packer writes them.
            let plain = vecs();
            let (a, b) = plain.split_at(plain.len() / 2);
            let pack = |part: &[u8]| {
                let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut out, part).unwrap();
                out.finish().unwrap()
            };
            one("v.fvecs.gz", [pack(a), pack(b)].concat())
        }
        _ => one("v.u8bin.zst", zstd::bulk::compress(&big_ann(), 1).unwrap()),
    };
    Stored { reference, files, rows, dims, element, body: body.to_vec() }
}

fn parquet_file(rows: u64, dims: u32, body: &[u8], fixed: bool) -> Vec<u8> {
    use arrow_array::builder::{FixedSizeListBuilder, Float32Builder, ListBuilder};
    use arrow_array::{ArrayRef, Int64Array, RecordBatch};
    let values = numbers(Element::F32, body);
    let list: ArrayRef = if fixed {
        let mut list = FixedSizeListBuilder::new(Float32Builder::new(), i32::try_from(dims).unwrap());
        for row in values.chunks(count::index(u64::from(dims))) {
            list.values().append_slice(row);
            list.append(true);
        }
        Arc::new(list.finish())
    } else {
        let mut list = ListBuilder::new(Float32Builder::new());
        for row in values.chunks(count::index(u64::from(dims))) {
            list.values().append_slice(row);
            list.append(true);
        }
        Arc::new(list.finish())
    };
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..i64::try_from(rows).unwrap()));
    let batch = RecordBatch::try_from_iter([("id", ids), ("emb", list)]).unwrap();
    let properties = ::parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(11))
        .set_data_page_row_count_limit(4)
        .set_write_batch_size(2)
        .build();
    let mut file = Vec::new();
    let mut writer =
        ::parquet::arrow::ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file
}

/// A data set in some format, and two places in 0..=rows.
pub(super) fn contents() -> impl Strategy<Value = (Stored, u64, u64)> {
    (prop::sample::select(&KINDS[..]), 1_u32..40, 1_u32..20).prop_flat_map(|(kind, rows, dims)| {
        let element = element_of(kind);
        let size = count::index(u64::from(rows * dims) * element.bytes());
        let rows = u64::from(rows);
        let body = prop::collection::vec(any::<u8>(), size);
        (body, 0..=rows, 0..=rows)
            .prop_map(move |(body, a, b)| (write(kind, rows, dims, element, &body), a, b))
    })
}
