//! The two layouts of valkey-bench: one file with a header of 4,096 bytes, or a YAML description of a headerless file.
//!
//! Both hold vectors, queries and neighbour lists in one object; the reference says which after `#`: nothing,
//! `queries` or `ground_truth`.

use serde::Deserialize;

use super::blob::Blob;
use super::strided::{Header, Strided};
use super::{Element, Error, Format};

/// The first four bytes of the file with a header.
pub(super) const MAGIC: u32 = 0xDECD_B001;
const HEADER_BYTES: u64 = 4096;
/// Vectors and queries begin at multiples of it.
const ALIGNMENT: u64 = 64;

/// What is wanted of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Vectors,
    Queries,
    Truth,
}

impl Section {
    fn of(name: Option<&str>) -> Result<Self, String> {
        match name {
            None | Some("" | "vectors" | "records") => Ok(Self::Vectors),
            Some("queries") => Ok(Self::Queries),
            Some("ground_truth") => Ok(Self::Truth),
            Some(other) => {
                Err(format!("it has no section `{other}`: name #vectors, #queries or #ground_truth"))
            }
        }
    }
}

/// Reads the header of the one-file layout; `None` where the magic is another.
pub(super) async fn open(blob: &Blob, section: Option<&str>) -> Result<Option<Header>, Error> {
    let head = blob.head(HEADER_BYTES).await?;
    if head.first_chunk::<4>() != Some(&MAGIC.to_le_bytes()) {
        return Ok(None);
    }
    if head.len() < 320 {
        return Err(Error::NoHeader {
            url: blob.url().to_owned(),
            expected: HEADER_BYTES,
            found: blob.size(),
        });
    }
    let refused =
        |reason: String| Error::Layout { url: blob.url().to_owned(), format: Format::ValkeyBench, reason };
    let header = parse(&head, section).map_err(&refused)?;
    if header.strided.end(header.rows) > blob.size() {
        let end = header.strided.end(header.rows);
        return Err(refused(format!(
            "its section ends at byte {end}, the file has {}: it is truncated",
            blob.size()
        )));
    }
    Ok(Some(header))
}

fn parse(head: &[u8], section: Option<&str>) -> Result<Header, String> {
    let u32_at = |at: usize| head.get(at..)?.first_chunk::<4>().map(|b| u32::from_le_bytes(*b));
    let u64_at = |at: usize| head.get(at..)?.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
    let short = || String::from("its header is truncated");
    let version = u32_at(4).ok_or_else(short)?;
    if !(1..=2).contains(&version) {
        return Err(format!("its version is {version}; 1 and 2 can be read"));
    }
    let element = match head.get(265) {
        Some(0) => Element::F32,
        Some(1) => Element::F16,
        other => return Err(format!("its type is {other:?}; 0 (f32) and 1 (f16) can be read")),
    };
    let dims = u32_at(268).ok_or_else(short)?;
    let (vectors, queries) = (u64_at(272).ok_or_else(short)?, u64_at(280).ok_or_else(short)?);
    let depth = u32_at(288).ok_or_else(short)?;
    let payload = u64::from(dims).saturating_mul(element.bytes());
    let aligned = payload.div_ceil(ALIGNMENT).saturating_mul(ALIGNMENT);
    let at = |offset: u64| Strided { offset, stride: aligned, lead: 0, payload, says_dims: None };
    Ok(match Section::of(section)? {
        Section::Vectors => {
            Header { rows: vectors, dims, element, strided: at(u64_at(296).ok_or_else(short)?) }
        }
        Section::Queries => {
            Header { rows: queries, dims, element, strided: at(u64_at(304).ok_or_else(short)?) }
        }
        Section::Truth => {
            let offset = u64_at(312).ok_or_else(short)?;
            Header {
                rows: queries,
                dims: depth,
                element: Element::I64,
                strided: Strided::packed(offset, depth, Element::I64),
            }
        }
    })
}

/// The YAML description, as far as vectors need it.
#[derive(Debug, Deserialize)]
struct Schema {
    version: u32,
    record: Record,
    sections: Sections,
}

#[derive(Debug, Deserialize)]
struct Record {
    #[serde(default)]
    fields: Vec<Field>,
}

#[derive(Debug, Deserialize)]
struct Field {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    dtype: Option<String>,
    dimensions: Option<u32>,
    length: Option<String>,
    max_bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Sections {
    records: Records,
    #[serde(default)]
    keys: Keys,
    #[serde(default)]
    queries: Queries,
    #[serde(default)]
    ground_truth: Truth,
}

#[derive(Debug, Deserialize)]
struct Records {
    count: u64,
}

#[derive(Debug, Default, Deserialize)]
struct Keys {
    #[serde(default)]
    present: bool,
    length: Option<String>,
    max_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct Queries {
    #[serde(default)]
    present: bool,
    count: Option<u64>,
    query_fields: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
struct Truth {
    #[serde(default)]
    present: bool,
    neighbors_per_query: Option<u32>,
    id_type: Option<String>,
}

impl Field {
    fn is_vector(&self) -> bool {
        self.kind == "vector"
    }

    fn element(&self) -> Result<Element, String> {
        Ok(match self.dtype.as_deref().unwrap_or(if self.is_vector() { "float32" } else { "float64" }) {
            "float32" => Element::F32,
            "float16" => Element::F16,
            "float64" => Element::F64,
            "uint8" => Element::U8,
            "int8" => Element::I8,
            "int32" => Element::I32,
            "uint32" | "u32" => Element::U32,
            "int64" => Element::I64,
            "uint64" | "u64" => Element::U64,
            other => return Err(format!("field `{}` has the unknown type `{other}`", self.name)),
        })
    }

    fn bytes(&self) -> Result<u64, String> {
        match self.kind.as_str() {
            "vector" => Ok(u64::from(self.dimensions.unwrap_or(1)).saturating_mul(self.element()?.bytes())),
            "numeric" => Ok(self.element()?.bytes()),
            "text" | "tag" | "blob" => Ok(sized(self.length.as_deref(), self.max_bytes.unwrap_or(64))),
            other => Err(format!("field `{}` is of the unknown kind `{other}`", self.name)),
        }
    }
}

/// Text of variable length is stored at its greatest length after a length of 4 bytes.
fn sized(length: Option<&str>, most: u64) -> u64 {
    if length == Some("variable") { most.saturating_add(4) } else { most }
}

/// Where the section lies in the file that the description goes with.
pub(super) fn describe(yaml: &str, section: Option<&str>) -> Result<Header, String> {
    let schema: Schema =
        serde_saphyr::from_str(yaml).map_err(|e| format!("it does not describe a data set: {e}"))?;
    if schema.version != 1 {
        return Err(format!("its version is {}; 1 can be read", schema.version));
    }
    let Sections { records, keys, queries, ground_truth: truth } = &schema.sections;
    let mut record_bytes = 0_u64;
    let mut vector = None;
    for field in &schema.record.fields {
        if vector.is_none() && field.is_vector() {
            vector = Some((field, record_bytes));
        }
        record_bytes = record_bytes.saturating_add(field.bytes()?);
    }
    let (vector, lead) = vector.ok_or("none of its fields is a vector")?;
    let (dims, element) = (vector.dimensions.unwrap_or(0), vector.element()?);
    let strided = |offset, stride, lead| Strided {
        offset,
        stride,
        lead,
        payload: vector_bytes(dims, element),
        says_dims: None,
    };
    let mut offset = 0;
    let wanted = Section::of(section)?;
    if wanted == Section::Vectors {
        return Ok(Header {
            rows: records.count,
            dims,
            element,
            strided: strided(offset, record_bytes, lead),
        });
    }
    offset = records.count.saturating_mul(record_bytes);
    if keys.present {
        let key_bytes = sized(keys.length.as_deref(), keys.max_bytes.unwrap_or(64));
        offset = offset.saturating_add(records.count.saturating_mul(key_bytes));
    }
    if !queries.present {
        return Err(String::from("it has no queries"));
    }
    let rows = queries.count.ok_or("its queries have no count")?;
    let mut query_bytes = 0_u64;
    let mut query_lead = None;
    let names: Vec<&str> = match &queries.query_fields {
        Some(names) => names.iter().map(String::as_str).collect(),
        None => vec![vector.name.as_str()],
    };
    for name in names {
        let field = schema.record.fields.iter().find(|f| f.name == name);
        let field = field.ok_or_else(|| format!("its queries name the unknown field `{name}`"))?;
        if field.name == vector.name {
            query_lead = Some(query_bytes);
        }
        query_bytes = query_bytes.saturating_add(field.bytes()?);
    }
    if wanted == Section::Queries {
        let lead = query_lead.ok_or_else(|| format!("its queries lack the field `{}`", vector.name))?;
        return Ok(Header { rows, dims, element, strided: strided(offset, query_bytes, lead) });
    }
    if !truth.present {
        return Err(String::from("it has no ground truth"));
    }
    offset = offset.saturating_add(rows.saturating_mul(query_bytes));
    let element = match truth.id_type.as_deref().unwrap_or("u64") {
        "u64" => Element::U64,
        "u32" => Element::U32,
        other => return Err(format!("its ids are of the unknown type `{other}`")),
    };
    let depth = truth.neighbors_per_query.unwrap_or(100);
    Ok(Header { rows, dims: depth, element, strided: Strided::packed(offset, depth, element) })
}

fn vector_bytes(dims: u32, element: Element) -> u64 {
    u64::from(dims).saturating_mul(element.bytes())
}
