//! The configuration's promises: good ones are read as written, bad ones are refused whole.

use super::*;

const MINIMAL: &str = r#"
region = "eu-west-1"
data_dir = "/tmp/tw"
[mesh]
listen = "127.0.0.1:7470"
tls = { ca = "ca.pem", certificate = "a.pem", key = "a.key" }
"#;

const POOL: &str = r#"
[[pool]]
rate_per_instance = 10
max_instances = 4
instance = { cpu_millis = 500 }
process = { command = ["worker"] }
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, [])
}

fn problems(text: &str) -> Vec<String> {
    parse(text).unwrap_err().problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_minimal_file_gets_the_defaults() {
    let config = parse(&format!("{MINIMAL}{POOL}")).unwrap();
    assert_eq!(config.mode, Mode::Advisory);
    assert_eq!(config.step.length(), MINUTE);
    assert!(config.api.listen.ip().is_loopback());
    assert_eq!(config.forecast.season, 1440);
    assert_eq!(config.mesh.state_budget_bytes, 65_536);
    assert_eq!(config.mesh.wire_version, Version::NEWEST);
    assert_eq!(config.pools[0].capacity.cpu_millis, 2000);
    assert_eq!(config.planner.quantile.thousandths(), 950);
}

#[test]
fn an_agent_is_kept_at_a_version_of_the_wire_that_it_knows() {
    let with = |value: &str| MINIMAL.replace("listen", &format!("wire_version = {value}\nlisten"));
    assert_eq!(parse(&with("1")).unwrap().mesh.wire_version, Version::V1);
    for value in ["0", "3", "257", "\"1\""] {
        let expected = format!("mesh.wire_version = {value}: must be 1 or 2, the versions of the wire that agents speak");
        assert_eq!(problems(&with(value)), [expected]);
    }
}

#[test]
fn a_pool_has_one_provider() {
    let pool = |provider: &str| {
        format!(
            "region = \"eu\"\ndata_dir = \"/tmp/x\"\n[mesh]\nlisten = \"127.0.0.1:1\"\n\
             tls = {{ ca = \"a\", certificate = \"b\", key = \"c\" }}\n[[pool]]\nrate_per_instance = 1\n\
             max_instances = 1\ninstance = {{ cpu_millis = 100 }}\n{provider}"
        )
    };
    parse(&pool("docker = { image = \"game:1\", env = { A = \"b\" } }")).unwrap();
    let cases = [
        ("docker = { image = \"\" }", "pool[0].docker.image = \"\": must be text that is not empty"),
        ("docker = { image = \"i\", socket = \"tcp://x\" }", "pool[0].docker.socket = \"tcp://x\": must be the path"),
        ("docker = { image = \"i\" }\nprocess = { command = [\"w\"] }", "pool[0].docker = a table: a pool has one provider"),
    ];
    for (provider, expected) in cases {
        let found = problems(&pool(provider));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{provider}: {found:#?}");
    }
}

#[test]
fn every_mistake_is_reported_at_once_with_key_value_and_remedy() {
    let text = r#"
        region = "EU West"
        step = "10ms"
        data_dri = "/tmp"
        colour = 3
        [mesh]
        listen = "localhost"
        tls = { ca = "ca.pem" }
        [ingest]
        lateness = 60
        [[pool]]
        max_instances = 0
        [pool.process]
        command = []
    "#;
    let found = problems(text);
    for expected in [
        "region = \"EU West\": region \"EU West\" must be",
        "step = \"10ms\": must be a duration between 50ms and 1h",
        "data_dir = (missing)",
        "data_dri = \"/tmp\": unknown key: did you mean `data_dir`?",
        "colour = 3: unknown key: remove it",
        "mesh.listen = \"localhost\": must be an IP address and a port",
        "mesh.tls.certificate = (missing)",
        "mesh.tls.key = (missing)",
        "ingest.lateness = 60: must be a duration",
        "pool[0].rate_per_instance = (missing)",
        "pool[0].max_instances = 0: must be a whole number between 1 and",
        "pool[0].process.command = []: must name a program",
    ] {
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "no {expected:?} in {found:#?}");
    }
    assert_eq!(found.len(), 12, "{found:#?}");
}

#[test]
fn the_bounds_of_a_duration_are_told_as_one_would_write_them() {
    let found = problems(&format!("{MINIMAL}\n[ingest]\nlateness = \"60d\""));
    assert!(found[0].contains("between 1m and 31d, like"), "{found:?}");
}

#[test]
fn broken_toml_names_the_line() {
    let found = problems("region = \n");
    assert!(found[0].contains("line 1"), "{found:?}");
}

#[test]
fn the_environment_overrides_single_keys() {
    let environment = [
        ("TRADEWIND_MESH__LISTEN", "127.0.0.1:9"),
        ("TRADEWIND_MODE", "active"),
        ("TRADEWIND_PLANNER__QUANTILE", "0.9"),
        ("TRADEWIND_AGENT", "http://elsewhere"),
        ("PATH", "/bin"),
    ];
    let config = Config::parse(MINIMAL, environment.map(|(k, v)| (k.into(), v.into()))).unwrap();
    assert_eq!(config.mesh.listen.port(), 9);
    assert_eq!(config.mode, Mode::Active);
    assert_eq!(config.planner.quantile.thousandths(), 900);

    let bad = Config::parse(MINIMAL, [("TRADEWIND_MESH__LISTN".into(), "x".into())]).unwrap_err();
    assert!(bad.to_string().contains("did you mean `listen`"), "{bad}");
    assert!(bad.to_string().contains("comes from TRADEWIND_MESH__LISTN in the environment"), "{bad}");
    let bad = Config::parse(MINIMAL, [("TRADEWIND_REGION__X".into(), "x".into())]).unwrap_err();
    assert!(bad.to_string().contains("not a table"), "{bad}");
}

#[test]
fn an_open_api_needs_certificates() {
    let found = problems(&format!("{MINIMAL}\n[api]\nlisten = \"0.0.0.0:7480\""));
    assert!(found[0].contains("[api.tls]"), "{found:?}");
}

#[test]
fn a_wildcard_endpoint_needs_an_advertised_address() {
    let text = MINIMAL.replace("listen = \"127.0.0.1:7470\"", "listen = \"0.0.0.0:7470\"");
    assert!(problems(&text)[0].starts_with("mesh.advertise = (missing)"));
    let text = text.replace("[mesh]", "[mesh]\nadvertise = \"192.0.2.1:7470\"");
    assert!(parse(&text).is_ok());
}

#[test]
fn two_pools_of_one_name_are_refused() {
    let found = problems(&format!("{MINIMAL}{POOL}{POOL}name = \"default\""));
    assert!(!found.is_empty());
    let found = problems(&format!("{MINIMAL}{POOL}{}", POOL.replace("[[pool]]", "[[pool]]\nname = \"default\"")));
    assert!(found[0].contains("must differ"), "{found:?}");
}

#[test]
fn capacity_must_hold_the_fewest_instances() {
    let text = format!("{MINIMAL}{}", POOL.replace("[[pool]]", "[[pool]]\nmin_instances = 3\ncapacity = { cpu_millis = 1000 }"));
    assert!(problems(&text)[0].starts_with("pool[0].capacity"));
}

#[test]
fn pools_take_from_their_service_what_they_do_not_say() {
    let text = r#"
[[service]]
name = "shop"
per_rate = { cpu_millis = 20, memory_bytes = 1000 }
instance = { cpu_millis = 500, memory_bytes = 10000 }
startup = "9s"
calls = { stock = 2.5 }
[[pool]]
name = "a"
service = "shop"
max_instances = 4
process = { command = ["worker"] }
[[pool]]
name = "b"
service = "shop"
max_instances = 4
instance = { cpu_millis = 1000, memory_bytes = 1000000 }
startup = "1s"
process = { command = ["worker"] }
[[pool]]
name = "c"
service = "stock"
max_instances = 4
rate_per_instance = 7
process = { command = ["worker"] }
"#;
    let config = parse(&format!("{MINIMAL}{text}")).unwrap();
    let [a, b, c] = &config.pools[..] else { panic!() };
    assert_eq!((a.rate_per_instance, a.startup, a.instance.cpu_millis), (10.0, 9 * SECOND, 500), "memory is what it has least of");
    assert_eq!((b.rate_per_instance, b.startup), (50.0, SECOND), "here it is the processor");
    let load: Vec<_> = config.planner.graph.load_on(&c.service).map(|(caller, factor)| (caller.to_string(), factor)).collect();
    assert_eq!(load, [("stock".to_string(), 1.0), ("shop".to_string(), 2.5)]);
}

#[test]
fn services_that_call_in_a_round_or_what_is_not_there_are_mistakes() {
    let text = r#"
[[service]]
name = "a"
calls = { b = 1 }
[[service]]
name = "b"
calls = { a = 1, nobody = 1.0 }
[[service]]
name = "b"
calls = { a = -1 }
"#;
    let found = problems(&format!("{MINIMAL}{POOL}{text}"));
    let expected = [
        "service[2].name = \"b\": must differ from the other services' names",
        "service[2].calls = { a = -1 }: a must be a number between 0 and 1000000",
        "service.calls = nobody: b calls it, but no [[service]] and no [[pool]] has this name: add one, or mend the name",
        "service.calls = the calls go round: a -> b -> a: take a call out",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_file_that_is_wrong_is_told_once_with_its_cause_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.toml");
    std::fs::write(&path, "region = 7\n").unwrap();
    let told = format!("{:#}", anyhow::Error::from(Config::load(&path).unwrap_err()));
    assert!(told.contains("bad.toml"), "{told}");
    assert_eq!(told.matches("region = 7").count(), 1, "{told}");
    let missing = format!("{:#}", anyhow::Error::from(Config::load(&dir.path().join("none.toml")).unwrap_err()));
    assert_eq!(missing.matches("No such file").count(), 1, "{missing}");
}

/// The examples that stand by themselves; others are of a pool, or name what is in an example before them.
#[test]
fn what_the_readme_shows_is_read() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let mut seen = vec![];
    for example in readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        let first = example.lines().next().unwrap().split('#').next().unwrap().trim();
        let text = match first {
            "region = \"eu-west-1\"" => example.to_string(),
            "[prometheus.read]" | "[forecast.global]" | "[reservations]" | "[calendar]" => format!("{MINIMAL}{example}"),
            _ => continue,
        };
        let read = Config::parse(&text, []);
        assert!(read.is_ok(), "{first}: {}", read.unwrap_err());
        seen.push(first);
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}
