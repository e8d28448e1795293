//! A snapshot as OpenMetrics text, for Prometheus.
//!
//! Names, labels and units are promised: docs/daemon.md has them all. Labels have few values; what
//! would be too many is summed up under `other`.

mod labels;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, time::UNIX_EPOCH};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use self::labels::Labels;
use crate::model::{LostKind, Snapshot};

/// What the text is, for `Content-Type`.
pub const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text. `most_series` is how many label sets a metric may have.
pub fn metrics_text(snapshot: Snapshot, most_series: usize) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("fdtrace");
    registry.register_collector(Box::new(Metrics { snapshot, most_series }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Metrics {
    snapshot: Snapshot,
    most_series: usize,
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out { encoder };
        self.failures(&mut out)?;
        self.close(&mut out)?;
        self.losses(&mut out)?;
        self.kernel(&mut out)?;
        self.programs(&mut out)?;
        self.own(&mut out)
    }
}

impl Metrics {
    fn failures(&self, out: &mut Out<'_>) -> fmt::Result {
        let Snapshot { failures, episodes, opened, .. } = &self.snapshot;
        let mut counts: BTreeMap<Labels<7>, u64> = BTreeMap::new();
        for one in failures {
            let labels = labels::failure(one.series.as_ref());
            *counts.entry(labels).or_default() += one.count;
        }
        let help = "Failed calls and refused connection attempts since fdtrace started";
        out.counters("failures", help, None, &counts)?;

        let mut open: BTreeMap<Labels<7>, u64> = BTreeMap::new();
        for episode in episodes {
            let labels = labels::bounded(&open, labels::episode(episode), self.most_series);
            *open.entry(labels).or_default() += 1;
        }
        out.gauges("episodes", "Episodes of failures that are open now", None, &open)?;

        let mut by_failure: BTreeMap<Labels<1>, u64> = BTreeMap::new();
        for (failure, count) in opened {
            *by_failure.entry([("failure", labels::why(*failure))]).or_default() += count;
        }
        let help = "Episodes of failures that were opened since fdtrace started";
        out.counters("episodes_opened", help, None, &by_failure)
    }

    fn close(&self, out: &mut Out<'_>) -> fmt::Result {
        let mut shares: BTreeMap<Labels<6>, f64> = BTreeMap::new();
        for close in &self.snapshot.close {
            let labels = labels::bounded(&shares, labels::close(close), self.most_series);
            // Of workers of one name, the fullest.
            let share = shares.entry(labels).or_default();
            *share = share.max(close.gauge.share().min(1.0));
        }
        let help = "Share in use of what is close to its limit: descriptors or an accept queue";
        out.gauges("warnings", help, None, &shares)
    }

    fn losses(&self, out: &mut Out<'_>) -> fmt::Result {
        let Snapshot { lost, undecoded, probes, .. } = &self.snapshot;
        let known = lost.iter().filter_map(|one| Some((one, one.count?)));
        let counts: BTreeMap<_, _> = known
            .map(|(one, count)| {
                let kind = match one.kind {
                    LostKind::Failures => "failures",
                    LostKind::Calls => "calls",
                    LostKind::Notices => "notices",
                    LostKind::Attribution => "attribution",
                };
                ([("reason", one.reason.to_owned()), ("kind", kind.to_owned())], count)
            })
            .collect();
        let help = "What was not counted, not told or not attributed since fdtrace started";
        out.counters("lost", help, None, &counts)?;
        let help = "Records of the eBPF side that could not be decoded";
        out.counter("decode_errors", help, None, undecoded)?;

        let up: BTreeMap<_, _> = probes
            .iter()
            .map(|probe| {
                let labels = [("probe", probe.probe.to_owned()), ("form", probe.form.to_owned())];
                (labels, u64::from(probe.is_up()))
            })
            .collect();
        out.gauges("probe_up", "Whether a probe is attached, and in which form", None, &up)
    }

    fn kernel(&self, out: &mut Out<'_>) -> fmt::Result {
        let pairs = &self.snapshot.kernel;
        let labels = |name: &str| [("counter", name.to_owned())];
        let counts: BTreeMap<_, _> =
            pairs.iter().map(|pair| (labels(pair.name), pair.delta)).collect();
        let help = "The kernel's own counters of all network namespaces since fdtrace started";
        out.counters("kernel", help, None, &counts)?;
        let unattributed = pairs.iter().filter_map(|pair| Some((pair.name, pair.unattributed()?)));
        let unattributed: BTreeMap<_, _> =
            unattributed.map(|(name, count)| (labels(name), count)).collect();
        let help = "What the kernel counted and fdtrace did not see; negative where it saw more";
        out.gauges("kernel_unattributed", help, None, &unattributed)
    }

    fn programs(&self, out: &mut Out<'_>) -> fmt::Result {
        let Some(programs) = &self.snapshot.programs else { return Ok(()) };
        let labels = |name: &str| [("program", name.to_owned())];
        let runs: BTreeMap<_, _> =
            programs.iter().map(|cost| (labels(&cost.program), cost.runs)).collect();
        out.counters("program_runs", "Runs of an eBPF program, while measured", None, &runs)?;
        let times: BTreeMap<_, _> =
            programs.iter().map(|cost| (labels(&cost.program), cost.time.as_secs_f64())).collect();
        let help = "Time that the runs of an eBPF program took, while measured";
        out.counters("program_run", help, Some(&Unit::Seconds), &times)
    }

    fn own(&self, out: &mut Out<'_>) -> fmt::Result {
        let Snapshot { own, started, version, .. } = &self.snapshot;
        let help = "Time on a core that fdtrace itself took";
        out.counter("cpu", help, Some(&Unit::Seconds), &own.cpu.as_secs_f64())?;
        if let Some(resident) = own.resident {
            let help = "Memory of fdtrace itself";
            out.gauge("resident_memory", help, Some(&Unit::Bytes), &resident)?;
        }
        if let Some(fds) = own.fds {
            out.gauge("open_fds", "Open descriptors of fdtrace itself", None, &fds)?;
        }
        let started = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        out.gauge("start_time", "When fdtrace attached", Some(&Unit::Seconds), &started)?;
        let labels = [("version", (*version).to_owned())];
        let build: BTreeMap<Labels<1>, u64> = [(labels, 1)].into();
        out.gauges("build_info", "The version of fdtrace", None, &build)
    }
}

/// Writes one metric after the other.
struct Out<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Out<'_> {
    fn counters<const N: usize, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: &BTreeMap<Labels<N>, V>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in values {
            let mut metric = family.encode_family(labels)?;
            metric.encode_counter::<NoLabelSet, _, u64>(value, None)?;
        }
        Ok(())
    }

    fn gauges<const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: &BTreeMap<Labels<N>, V>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(labels)?.encode_gauge(value)?;
        }
        Ok(())
    }

    fn counter<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: &V,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(value, None)
    }

    fn gauge<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: &V,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        metric.encode_gauge(value)
    }
}
