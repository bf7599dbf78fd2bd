//! Figures in Prometheus's text form, made anew for each scrape from what a process knows of itself.
//!
//! Law: names carry base units (`_seconds`, `_bytes`, `_total`), and a name has one kind, one help text and one set of
//! labels; a value that does not fit in with the first of its name is left out.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::proto::{self, Bucket, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{CounterVec, GaugeVec, Opts, Registry, TextEncoder};
use vst_common::clock;
use vst_common::count;

/// Labels of a value: name and value.
type Labels<'a> = &'a [(&'a str, &'a str)];

enum Family {
    Gauge(GaugeVec),
    Counter(CounterVec),
}

/// Values by how large they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Upper bounds, ascending, each with the number of values up to it.
    pub at_most: Vec<(f64, u64)>,
    /// All values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

/// The figures of one scrape.
pub struct Metrics {
    registry: Registry,
    families: BTreeMap<&'static str, Family>,
    /// What comes counted; the library's own histograms only count one by one.
    histograms: BTreeMap<&'static str, MetricFamily>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.families.keys()).finish()
    }
}

impl Metrics {
    /// Media type of [`Metrics::text`].
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// What every process says: its version, CPU time, memory and open files.
    #[must_use]
    pub fn of_process() -> Self {
        let mut metrics =
            Self { registry: Registry::new(), families: BTreeMap::new(), histograms: BTreeMap::new() };
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        metrics.gauge("vst_build_info", "Version of vst; always 1.", &version, 1.0);
        let cpu = count::to_f64(clock::process_cpu_ns()) / 1e9;
        metrics.counter("process_cpu_seconds_total", "CPU time of this process.", &[], cpu);
        if let Some(bytes) = resident_bytes() {
            let help = "Memory of this process that is in RAM.";
            metrics.gauge("process_resident_memory_bytes", help, &[], count::to_f64(bytes));
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            let files = count::to_f64(count::len(files.count()));
            metrics.gauge("process_open_fds", "Open files of this process.", &[], files);
        }
        metrics
    }

    /// Adds a value that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &str, labels: Labels<'_>, value: f64) {
        if !self.families.contains_key(name) {
            let made = GaugeVec::new(Opts::new(name, help), &names(labels));
            self.add(name, made, Family::Gauge);
        }
        if let Some(Family::Gauge(family)) = self.families.get(name)
            && let Ok(gauge) = family.get_metric_with_label_values(&values(labels))
        {
            gauge.set(value);
        }
    }

    /// Adds a count that only grows.
    pub fn counter(&mut self, name: &'static str, help: &str, labels: Labels<'_>, value: f64) {
        if !self.families.contains_key(name) {
            let made = CounterVec::new(Opts::new(name, help), &names(labels));
            self.add(name, made, Family::Counter);
        }
        // The library refuses to count by less than nothing, in debug builds by a panic.
        if let Some(Family::Counter(family)) = self.families.get(name)
            && let Ok(counter) = family.get_metric_with_label_values(&values(labels))
            && value > 0.0
        {
            counter.inc_by(value);
        }
    }

    /// Adds values that were counted elsewhere.
    pub fn histogram(&mut self, name: &'static str, help: &str, labels: Labels<'_>, values: &Histogram) {
        let family = self.histograms.entry(name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(MetricType::HISTOGRAM);
            family
        });
        let buckets = values.at_most.iter().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(values.count);
        histogram.set_sample_sum(values.sum);
        let labels = labels.iter().map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value((*value).to_owned());
            label
        });
        let mut metric = Metric::from_label(labels.collect());
        metric.set_histogram(histogram);
        family.mut_metric().push(metric);
    }

    fn add<T: Collector + Clone + 'static>(
        &mut self,
        name: &'static str,
        made: Result<T, prometheus::Error>,
        family: fn(T) -> Family,
    ) {
        let Ok(made) = made else { return };
        if self.registry.register(Box::new(made.clone())).is_ok() {
            self.families.insert(name, family(made));
        }
    }

    /// All figures as text.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(self.histograms.values().cloned());
        TextEncoder::new().encode_to_string(&families)
    }
}

fn names<'a>(labels: Labels<'a>) -> Vec<&'a str> {
    labels.iter().map(|(name, _)| *name).collect()
}

fn values<'a>(labels: Labels<'a>) -> Vec<&'a str> {
    labels.iter().map(|(_, value)| *value).collect()
}

fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_name_stand_together_and_labels_cannot_break_out() {
        let mut metrics = Metrics::of_process();
        metrics.gauge("vst_lag_seconds", "How late.", &[("worker", "a")], 0.5);
        metrics.counter("vst_sent_total", "Sent.", &[], 3.0);
        metrics.gauge("vst_lag_seconds", "How late.", &[("worker", "b\"} 1\nvst_evil 2")], 2.0);
        metrics.gauge("vst_lag_seconds", "How late.", &[("other", "x"), ("more", "y")], 9.0);
        metrics.counter("vst_sent_total", "Sent.", &[], -1.0);
        let text = metrics.text().unwrap();
        assert!(text.contains("vst_lag_seconds{worker=\"a\"} 0.5\n"), "{text}");
        assert!(text.contains("vst_sent_total 3\n"), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("vst_evil")), "{text}");
        assert_eq!(text.matches("# TYPE vst_lag_seconds gauge").count(), 1);
        assert!(!text.contains('9') || !text.contains("other"), "another set of labels is left out: {text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
    }

    #[test]
    fn a_histogram_has_its_buckets_its_sum_and_all_values_in_the_last() {
        let mut metrics = Metrics::of_process();
        let values = Histogram { at_most: vec![(0.001, 2), (0.5, 5)], count: 6, sum: 3.25 };
        metrics.histogram("vst_took_seconds", "How long.", &[("phase", "a\"b")], &values);
        let text = metrics.text().unwrap();
        let of: Vec<&str> = text.lines().filter(|line| line.starts_with("vst_took_seconds")).collect();
        assert_eq!(
            of,
            [
                "vst_took_seconds_bucket{phase=\"a\\\"b\",le=\"0.001\"} 2",
                "vst_took_seconds_bucket{phase=\"a\\\"b\",le=\"0.5\"} 5",
                "vst_took_seconds_bucket{phase=\"a\\\"b\",le=\"+Inf\"} 6",
                "vst_took_seconds_sum{phase=\"a\\\"b\"} 3.25",
                "vst_took_seconds_count{phase=\"a\\\"b\"} 6",
            ]
        );
        assert_eq!(text.matches("# TYPE vst_took_seconds histogram").count(), 1);
    }
}
