//! Alerts, recording rules and the dashboard.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{path, read, run};

/// Every metric of `fdtrace daemon`, as docs/daemon.md has them: a test of the metrics themselves holds
/// that to what is written.
fn metrics() -> BTreeSet<String> {
    let docs = read("../docs/daemon.md");
    let rows = docs.lines().filter_map(|line| line.strip_prefix("| `fdtrace_")?.split_once("` |"));
    let names: BTreeSet<_> = rows.map(|(name, _)| format!("fdtrace_{name}")).collect();
    assert!(!names.is_empty());
    names
}

/// The metrics of fdtrace's that a text names. A recording rule's name has colons around them.
fn named(text: &str) -> BTreeSet<&str> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_of_name(c));
    words.filter(|word| word.starts_with("fdtrace_") && !word.contains(':')).collect()
}

#[track_caller]
fn assert_known(text: &str, what: &str) {
    let known = metrics();
    let unknown: Vec<_> = named(text).into_iter().filter(|name| !known.contains(*name)).collect();
    assert!(unknown.is_empty(), "{what} names {unknown:?}");
}

#[test]
fn rules_do_what_their_tests_say() {
    let rules = path("prometheus/fdtrace.rules.yml");
    run("promtool", &["check", "rules", rules.to_str().unwrap()]);
    let tests = path("prometheus/fdtrace.test.yml");
    run("promtool", &["test", "rules", tests.to_str().unwrap()]);
}

#[test]
fn rules_ask_for_metrics_that_there_are() {
    assert_known(&read("prometheus/fdtrace.rules.yml"), "a rule");
    assert_known(&read("prometheus/fdtrace.test.yml"), "a test of the rules");
}

/// Every alert is tested, and tells what to run next.
#[test]
fn alerts_say_what_to_run() {
    let rules: Value = serde_yaml_ng::from_str(&read("prometheus/fdtrace.rules.yml")).unwrap();
    let tests: Value = serde_yaml_ng::from_str(&read("prometheus/fdtrace.test.yml")).unwrap();
    let tests = tests["tests"].as_array().unwrap();
    let tested: BTreeSet<_> = tests
        .iter()
        .filter_map(|test| test["alert_rule_test"].as_array())
        .flatten()
        .filter(|test| test["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty()))
        .map(|test| test["alertname"].as_str().unwrap())
        .collect();
    let groups = rules["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    let alerts: Vec<_> = rules.filter(|rule| rule["alert"].is_string()).collect();
    assert!(!alerts.is_empty());
    for rule in alerts {
        let name = rule["alert"].as_str().unwrap();
        assert!(tested.contains(name), "{name} is not tested");
        let annotations = &rule["annotations"];
        assert!(annotations["summary"].as_str().unwrap().contains("$labels.instance"), "{name}");
        let description = annotations["description"].as_str().unwrap();
        assert!(description.contains(" run: "), "{name}: {description}");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
    }
}

/// Every query of the dashboard, and the title of what asks it.
fn queries(dashboard: &Value) -> Vec<(&str, &str)> {
    let annotations = dashboard["annotations"]["list"].as_array().unwrap();
    let annotations = annotations
        .iter()
        .map(|note| (note["name"].as_str().unwrap(), note["expr"].as_str().unwrap()));
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().unwrap();
        targets.iter().map(move |target| (title, target["expr"].as_str().unwrap()))
    });
    annotations.chain(targets).collect()
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let text = read("grafana/fdtrace.json");
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let queries = queries(&dashboard);
    for (title, query) in &queries {
        assert_known(query, title);
    }
    let all = queries.iter().map(|(_, query)| *query).collect::<Vec<_>>().join("\n");
    let shown = named(&all);
    for metric in metrics() {
        assert!(shown.contains(metric.as_str()), "no panel shows {metric}");
    }
}

/// As rules, with what Grafana puts for its variables.
#[test]
fn the_dashboards_queries_are_queries() {
    let dashboard: Value = serde_json::from_str(&read("grafana/fdtrace.json")).unwrap();
    let rules: Vec<_> = queries(&dashboard)
        .iter()
        .enumerate()
        .map(|(number, (_, query))| {
            let query = query.replace("$instance", ".*").replace("$__rate_interval", "1m");
            assert!(!query.contains('$'), "{query} has a variable that there is not");
            serde_json::json!({ "record": format!("query:{number}"), "expr": query })
        })
        .collect();
    let rules = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), rules.to_string()).unwrap();
    run("promtool", &["check", "rules", "--lint=none", file.path().to_str().unwrap()]);
}

#[test]
fn panels_do_not_lie_over_each_other() {
    let dashboard: Value = serde_json::from_str(&read("grafana/fdtrace.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id twice: {panel}");
        let place = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        let [x, y, w, h] = place;
        assert!(x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} lies over another", panel["title"]);
        }
    }
}
