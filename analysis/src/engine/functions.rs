//! The HDR functions of the SQL dialect.
//!
//! `hdr_merge(binary)` is an aggregate that gives a histogram; `hdr_quantile(binary, double)`, `hdr_cdf(binary, bigint)`
//! (the share of values that are at most so large), `hdr_max(binary)` and `hdr_count(binary)` read one, in nanoseconds and
//! values. NULL histograms count for nothing; a quantile or share of nothing is NULL. Law: SQL gives what merging the histograms directly gives, however rows are split into batches,
//! partitions and groups.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BinaryArray, Float64Array, Int64Array};
use arrow_schema::DataType;
use datafusion::common::cast::{as_binary_array, as_float64_array, as_int64_array};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{Accumulator, ColumnarValue, Volatility, create_udaf, create_udf};
use datafusion::scalar::ScalarValue;
use vst_common::count;
use vst_common::latency::Hdr;

use super::slots::{self, Merge};

/// Makes the functions known to a session.
pub(crate) fn register(context: &SessionContext) {
    context.register_udaf(create_udaf(
        "hdr_merge",
        vec![DataType::Binary],
        Arc::new(DataType::Binary),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::<HdrMerge>::default())),
        Arc::new(vec![DataType::Binary]),
    ));
    context.register_udf(create_udf(
        "hdr_quantile",
        vec![DataType::Binary, DataType::Float64],
        DataType::Int64,
        Volatility::Immutable,
        Arc::new(quantile),
    ));
    context.register_udf(create_udf(
        "hdr_cdf",
        vec![DataType::Binary, DataType::Int64],
        DataType::Float64,
        Volatility::Immutable,
        Arc::new(cdf),
    ));
    context.register_udf(create_udf(
        "hdr_max",
        vec![DataType::Binary],
        DataType::Int64,
        Volatility::Immutable,
        Arc::new(max),
    ));
    context.register_udf(create_udf(
        "hdr_count",
        vec![DataType::Binary],
        DataType::Int64,
        Volatility::Immutable,
        Arc::new(len),
    ));
}

fn failed(error: vst_common::latency::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[derive(Debug, Default)]
struct HdrMerge(Merge);

impl Accumulator for HdrMerge {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(column) = values.first() else { return Ok(()) };
        for bytes in as_binary_array(column)?.iter().flatten() {
            self.0.add(bytes).map_err(failed)?;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        // A partial merge is a histogram like any other.
        self.update_batch(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Binary(self.0.finish().map_err(failed)?))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn size(&self) -> usize {
        self.0.size_bytes()
    }
}

fn quantile(args: &[ColumnarValue]) -> Result<ColumnarValue> {
    let columns = ColumnarValue::values_to_arrays(args)?;
    let [histograms, quantiles] = columns.as_slice() else {
        return Err(DataFusionError::Plan(String::from("hdr_quantile takes a histogram and a quantile")));
    };
    let (histograms, quantiles): (&BinaryArray, &Float64Array) =
        (as_binary_array(histograms)?, as_float64_array(quantiles)?);
    let mut out = Int64Array::builder(histograms.len());
    for (bytes, q) in histograms.iter().zip(quantiles) {
        match (bytes, q) {
            (Some(bytes), Some(q)) if (0.0..=1.0).contains(&q) => {
                out.append_option(Hdr::decode(bytes).map_err(failed)?.quantile(q).map(count::to_i64));
            }
            (_, Some(q)) if !(0.0..=1.0).contains(&q) => {
                return Err(DataFusionError::Execution(format!(
                    "hdr_quantile: a quantile is between 0 and 1, not {q}; for the 99th percentile write 0.99"
                )));
            }
            _ => out.append_null(),
        }
    }
    Ok(ColumnarValue::Array(Arc::new(out.finish())))
}

fn cdf(args: &[ColumnarValue]) -> Result<ColumnarValue> {
    let columns = ColumnarValue::values_to_arrays(args)?;
    let [histograms, bounds] = columns.as_slice() else {
        return Err(DataFusionError::Plan(String::from("hdr_cdf takes a histogram and nanoseconds")));
    };
    let mut out = Float64Array::builder(histograms.len());
    for (bytes, ns) in as_binary_array(histograms)?.iter().zip(as_int64_array(bounds)?) {
        let share = match bytes.zip(ns) {
            Some((bytes, ns)) => {
                let hdr = Hdr::decode(bytes).map_err(failed)?;
                let below = u64::try_from(ns).map_or(0, |ns| hdr.count_at_most(ns));
                (!hdr.is_empty()).then(|| count::to_f64(below) / count::to_f64(hdr.len()))
            }
            None => None,
        };
        out.append_option(share);
    }
    Ok(ColumnarValue::Array(Arc::new(out.finish())))
}

fn max(args: &[ColumnarValue]) -> Result<ColumnarValue> {
    each(args, |bytes| Ok(Hdr::decode(bytes).map_err(failed)?.max().map(count::to_i64)))
}

fn len(args: &[ColumnarValue]) -> Result<ColumnarValue> {
    each(args, |bytes| Ok(Some(count::to_i64(slots::len(bytes).map_err(failed)?))))
}

fn each(args: &[ColumnarValue], f: impl Fn(&[u8]) -> Result<Option<i64>>) -> Result<ColumnarValue> {
    let columns = ColumnarValue::values_to_arrays(args)?;
    let mut out = Int64Array::builder(0);
    for column in columns.iter().take(1) {
        for bytes in as_binary_array(column)? {
            out.append_option(bytes.map(&f).transpose()?.flatten());
        }
    }
    Ok(ColumnarValue::Array(Arc::new(out.finish())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow_array::RecordBatch;
    use arrow_schema::{Field, Schema};
    use datafusion::datasource::MemTable;
    use datafusion::prelude::SessionConfig;
    use proptest::prelude::*;

    use super::*;

    type Row = (i64, Option<Vec<u64>>);

    fn hdr(values: &[u64]) -> Hdr {
        let mut h = Hdr::new();
        for v in values {
            h.record(*v);
        }
        h
    }

    fn batch(rows: &[Row]) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![
            Field::new("g", DataType::Int64, false),
            Field::new("h", DataType::Binary, true),
        ]));
        let bytes: Vec<_> = rows.iter().map(|(_, v)| v.as_ref().map(|v| hdr(v).encode().unwrap())).collect();
        let groups = Int64Array::from_iter_values(rows.iter().map(|(g, _)| *g));
        let column = BinaryArray::from_iter(bytes.iter().map(|b| b.as_deref()));
        RecordBatch::try_new(schema, vec![Arc::new(groups), Arc::new(column)]).unwrap()
    }

    fn session(partitions: &[Vec<Row>]) -> SessionContext {
        let context = SessionContext::new_with_config(
            SessionConfig::new().with_target_partitions(partitions.len().max(1)).with_batch_size(5),
        );
        register(&context);
        let parts: Vec<_> = partitions.iter().map(|rows| vec![batch(rows)]).collect();
        let schema = batch(&[]).schema();
        context.register_table("t", Arc::new(MemTable::try_new(schema, parts).unwrap())).unwrap();
        context
    }

    fn run(context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async { context.sql(sql).await?.collect().await })
    }

    fn row() -> impl Strategy<Value = Row> {
        let value = (4_u32..41, 0_u64..1_000).prop_map(|(e, x)| (1_u64 << e) + (x << e) / 1_000);
        (0_i64..5, prop::option::weighted(0.9, prop::collection::vec(value, 0..40)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn sql_gives_what_merging_directly_gives(
            partitions in prop::collection::vec(prop::collection::vec(row(), 0..30), 1..5),
            q in 0.0_f64..=1.0,
        ) {
            let mut direct: BTreeMap<i64, Option<Hdr>> = BTreeMap::new();
            for (g, values) in partitions.iter().flatten() {
                let group = direct.entry(*g).or_default();
                if let Some(values) = values {
                    group.get_or_insert_default().merge(&hdr(values));
                }
            }
            let sql = format!(
                "select g, hdr_merge(h) as h, hdr_quantile(hdr_merge(h), {q:.17}) as q, \
                 hdr_max(hdr_merge(h)) as m, hdr_count(hdr_merge(h)) as n from t group by g"
            );
            let mut seen = BTreeMap::new();
            for batch in run(&session(&partitions), &sql).unwrap() {
                let int = |name: &str| as_int64_array(batch.column_by_name(name).unwrap()).unwrap().clone();
                let bytes = as_binary_array(batch.column_by_name("h").unwrap()).unwrap();
                for i in 0..batch.num_rows() {
                    let value = |c: Int64Array| c.is_valid(i).then(|| count::to_u64(c.value(i)));
                    let h = bytes.is_valid(i).then(|| Hdr::decode(bytes.value(i)).unwrap());
                    seen.insert(int("g").value(i), (h, value(int("q")), value(int("m")), value(int("n"))));
                }
            }
            prop_assert_eq!(seen.len(), direct.len());
            for (g, h) in direct {
                let (merged, quantile, max, n) = seen.remove(&g).unwrap();
                prop_assert_eq!(quantile, h.as_ref().and_then(|h| h.quantile(q)));
                prop_assert_eq!(max, h.as_ref().and_then(Hdr::max));
                prop_assert_eq!(n, h.as_ref().map(Hdr::len));
                prop_assert_eq!(
                    merged.map(|h| h.encode().unwrap()),
                    h.map(|h| h.encode().unwrap())
                );
            }
        }
    }

    #[test]
    fn a_share_is_that_of_the_values_and_null_of_nothing() {
        let values: Vec<u64> = (1..=1_000).map(|i| i * 1_000).collect();
        let context = session(&[vec![(0, Some(values)), (1, None), (2, Some(vec![]))]]);
        let sql = "select g, hdr_cdf(h, 250000) as a, hdr_cdf(h, -1) as b, hdr_cdf(h, 9000000000000) as c
                   from t order by g";
        let batches = run(&context, sql).unwrap();
        let column = |name: &str| {
            let of = |b: &RecordBatch| {
                let column = as_float64_array(b.column_by_name(name).unwrap()).unwrap().clone();
                column.iter().collect::<Vec<_>>()
            };
            batches.iter().flat_map(of).collect::<Vec<_>>()
        };
        // Values are told apart to three digits.
        let [Some(share), None, None] = column("a")[..] else { panic!("{:?}", column("a")) };
        assert!((share - 0.25).abs() < 0.002, "{share}");
        assert_eq!((column("b")[0], column("c")[0]), (Some(0.0), Some(1.0)));
    }

    #[test]
    fn a_quantile_over_one_is_refused() {
        let error =
            run(&session(&[vec![(0, Some(vec![1_000]))]]), "select hdr_quantile(h, 99) from t").unwrap_err();
        assert!(error.to_string().contains("write 0.99"), "{error}");
    }

    #[test]
    fn bytes_that_are_no_histogram_are_an_error_and_not_a_number() {
        let error = run(&session(&[vec![]]), "select hdr_quantile(x'00ff', 0.5)").unwrap_err();
        assert!(error.to_string().contains("not a readable HDR"), "{error}");
    }
}
