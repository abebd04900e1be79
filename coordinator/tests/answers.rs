//! What the agent says reaches its reader: in every format, for every question.

use crate::fixtures::*;
use crate::stub::*;

/// Every question, the request that it becomes, and the answer.
fn questions() -> Vec<(Vec<&'static str>, &'static str, String)> {
    vec![
        (vec!["status"], "GET /v1/status", json(&status())),
        (vec!["regions"], "GET /v1/regions", json(&regions())),
        (vec!["pools"], "GET /v1/pools", json(&pools())),
        (vec!["instances"], "GET /v1/instances", json(&instances())),
        (vec!["forecasts"], "GET /v1/forecasts", json(&forecasts())),
        (
            vec!["forecasts", "--from", "denver", "--to", "chicago", "--type", "buy"],
            "GET /v1/forecasts?from=denver&to=chicago&type=buy",
            json(&forecasts()),
        ),
        (
            vec!["history", "denver", "chicago", "--resolution", "1h"],
            "GET /v1/history?from=denver&to=chicago&resolution=1h&buckets=24",
            json(&history()),
        ),
        (vec!["prices"], "GET /v1/prices", json(&prices())),
        (vec!["plan"], "GET /v1/plan", json(&plan())),
        (vec!["explain", "plan"], "GET /v1/plan/explain", json(&plan_explanation())),
        (vec!["explain", "plan", "web"], "GET /v1/plan/explain?pool=web", json(&plan_explanation())),
        (vec!["scale", "new-york"], "POST /regions/new-york/predictiveScale?dry_run=true", json(&outcome())),
        (vec!["scale", "new-york", "--apply"], "POST /regions/new-york/predictiveScale?dry_run=false", json(&outcome())),
        (vec!["anomalies"], "GET /v1/anomalies", json(&anomalies())),
        (vec!["calendar"], "GET /v1/calendar", json(&calendar())),
        (vec!["events"], "GET /v1/events", json(&vec![event(1), event(2)])),
        (vec!["events", "--since", "5"], "GET /v1/events?since=5", json(&vec![event(6)])),
    ]
}

#[test]
fn every_question_asks_its_route_and_prints_the_same_document_in_every_format() {
    for (arguments, request, body) in questions() {
        for format in ["table", "json", "yaml"] {
            let stub = Stub::answering(Reply::json(body.clone()));
            let text = run(&[&arguments[..], &["--agent", &stub.url(), "-o", format]].concat()).ok();
            let head = stub.request();
            assert!(head.starts_with(&format!("{request} HTTP/1.1\r\n")), "{arguments:?} asked {head}");
            match format {
                "json" => assert_eq!(text, format!("{body}\n"), "{arguments:?}"),
                "yaml" => {
                    let yaml: serde_json::Value = serde_norway::from_str(&text).unwrap();
                    assert_eq!(yaml, serde_json::from_str::<serde_json::Value>(&body).unwrap(), "{arguments:?}");
                }
                _ => assert!(!text.contains('{') && !text.contains('\x1b') && text.ends_with('\n'), "{arguments:?}: {text}"),
            }
        }
    }
}

#[test]
fn yaml_keeps_the_order_of_the_document() {
    let text = ask(&["status", "-o", "yaml"], Reply::json(json(&status()))).ok();
    assert!(text.starts_with("region: new-york\ncluster: abilene\nversion: 0.1.0\n"), "{text}");
}

#[test]
fn json_passes_fields_that_this_version_does_not_know() {
    let body = r#"{"region":"new-york","from_the_future":[1,2]}"#;
    assert_eq!(ask(&["status", "-o", "json"], Reply::json(body)).ok(), format!("{body}\n"));
}

#[test]
fn status_says_what_is_and_why() {
    let text = ask(&["status"], Reply::json(json(&status()))).ok();
    let wanted = "\
region       new-york
cluster      abilene
health       degraded: no records for 3 steps
mode         advisory: it plans, and changes nothing
version      0.1.0
up           5 h 12 min, since 2026-01-01 00:00:00 UTC
step         1 min, last closed 2026-01-01 05:11:00 UTC
regions      11 of 12 live
series       132
records      1,234,567 accepted, 3 refused
folded       acme: 98,765 transactions of more than 256 series are counted as `other` (ingest.max_series_per_tenant)
instances    5 ready
certificate  ends in 18 d 18 h, 2026-01-20 00:00:00 UTC: issue a new one with `tradewind tls agent`, and restart the agent with it
";
    assert_eq!(text, wanted);
}

#[test]
fn the_past_is_told_bucket_by_bucket() {
    let text = ask(&["history", "denver", "chicago"], Reply::json(json(&history()))).ok();
    let wanted = "\
denver > chicago  default/checkout/buy
FROM (UTC)           COUNT  RATE /s
2026-01-01 04:00:00  3,600     1.00
2026-01-01 05:00:00    450     0.12
";
    assert_eq!(text, wanted);
}

#[test]
fn regions_align_and_tell_the_dead_from_the_living() {
    let text = ask(&["regions"], Reply::json(json(&regions()))).ok();
    let wanted = "\
REGION    LIVE  HEALTH    MODE      RTT    AGE  FORECASTS              LEFT OUT     STATE  VERSION  WIRE  ADDRESS
new-york  yes   healthy   active   self    0 s        132                     0  13.2 KiB  0.1.0       -  127.0.0.1:7401
chicago   yes   degraded  active  18 ms  1.2 s        132  12 (0.4 % of volume)  13.2 KiB  0.1.0       2  127.0.0.1:7401
denver    no    healthy   -           -      -          0                     0       0 B  -           -  127.0.0.1:7401
";
    assert_eq!(text, wanted);
}

#[test]
fn pools_show_what_stands_ready_and_what_it_costs() {
    let text = ask(&["pools"], Reply::json(json(&pools()))).ok();
    let wanted = "\
REGION    POOL  SERVICE   ACTIVE  WARM  STARTING  DRAINING  LIMITS   SERVES    IN USE       PRICE  STARTUP  AGE
new-york  web   checkout       6     2         1         0    1-20  75.0 /s  45 % cpu  $0.0425 /h      8 s  0 s
";
    assert_eq!(text, wanted);
    assert!(ask(&["pools"], Reply::json("[]")).ok().starts_with("No region has a pool"));
}

#[test]
fn instances_say_what_they_run_as() {
    let text = ask(&["instances"], Reply::json(json(&instances()))).ok();
    let wanted = "\
POOL  INSTANCE  STATE   SINCE (UTC)          RUNS AS
web   web-3     active  2026-01-01 05:00:00  pid 4711 (spot)
";
    assert_eq!(text, wanted);
    assert_eq!(ask(&["instances"], Reply::json("[]")).ok(), "No instances.\n");
}

#[test]
fn a_plan_gives_its_reasons() {
    let text = ask(&["plan"], Reply::json(json(&plan()))).ok();
    let wanted = "\
Plan 12 of new-york, made 2026-01-01 05:11:02 UTC, advisory, not carried out

POOL  SERVICE   ACTIVE  WARM  FLOOR     SEEN   MEDIAN  PROVISIONED FOR        LEAD  READY BY (UTC)
web   checkout  3 -> 5     2      3  31.5 /s  48.0 /s  61.2 /s (q97.5)  1 min 30 s  2026-01-01 05:13:00

web: demand rises within the lead time (11 forecasts)
  blocked: the pool's capacity ends at 5 instances
  4 on demand and 3 spot, 1 of them a reserve for interruptions: max_share: the rest is on demand
  no fresh forecast from denver: left to the reactive floor
note: denver has not been heard of for 10 min
";
    assert_eq!(text, wanted);
}

#[test]
fn an_explained_plan_tells_costs_alternatives_sources_and_margin() {
    let text = ask(&["explain", "plan"], Reply::json(json(&plan_explanation()))).ok();
    let wanted = "\
Plan 12 of new-york, made 2026-01-01 05:11:02 UTC, advisory

web: 5 active and 2 warm, 5 before
decided by          demand rises within the lead time
demand              61.2 /s is provided for at q97.5, 31.5 /s was seen
forecast            60.5 /s at that quantile, median 48.0 /s
own demand          foretells 60.0 /s
lead time           1 min 30 s
price               $0.0425 /h
cost of being late  40.0 prices, as the quantile has it
idle instances      kept for 5 min (break-even 1 min 30 s)
budget              $0.30 /h
mix                 4 on demand and 3 spot, 1 of them a reserve for interruptions: max_share: the rest is on demand
spot price          $0.01275 /h, taken above $0.0425
spot limits         at most 50 % of the pool is spot, of which 100 % may be taken at once
interruptions       0.0625 an hour expected, missing for 8 s each; 0.0400 an hour before anything was seen, 2.00 taken in 20.0 instance-hours, \
price above the bid 0 times in 6.00 h
blocked             the pool's capacity ends at 5 instances

INSTANCES  WHAT      MISSING  COST  WHY NOT
        6  q95          0.05  8.00  costs 0.60 instances more
        7  chosen       0.01  7.40
        7  all spot     0.20  9.00  costs 1.60 instances more

SOURCE  ENTERS AT  TIMES   MEDIAN  SHARE               AGE
denver  checkout    1.00  48.0 /s  100 %  1 min 1 s, stale

margin x1.25 over the median, learned from 1,440 steps: the pool's own demand 50 %, x1.00 25 %, x1.33 (tuned) 75 %; regret 12.5 instance-steps
";
    assert_eq!(text, wanted);
}

#[test]
fn a_scaling_says_whether_anything_was_changed() {
    let text = ask(&["scale", "new-york"], Reply::json(json(&outcome()))).ok();
    assert!(text.contains("dry run: nothing was changed"), "{text}");
    let mut applied = outcome();
    applied.dry_run = false;
    let text = ask(&["scale", "new-york", "--apply"], Reply::json(json(&applied))).ok();
    assert!(text.contains("advisory and changes nothing"), "{text}");
    applied.plan.mode = tradewind_protocol::region::Mode::Active;
    let text = ask(&["scale", "new-york", "--apply"], Reply::json(json(&applied))).ok();
    assert!(text.ends_with("Planned, and being carried out.\n"), "{text}");
}

#[test]
fn events_are_one_line_each() {
    let text = ask(&["events"], Reply::json(json(&vec![event(1), event(2)]))).ok();
    let wanted = "     1  2026-01-01 05:11:02  warning  new-york  mesh.region_lost          denver does not answer\n";
    assert_eq!(text, format!("{wanted}{}", wanted.replace("  1  2026", "  2  2026")));
}

#[test]
fn what_another_region_says_cannot_steer_the_terminal() {
    let mut hostile = event(1);
    hostile.message = "\x1b]0;owned\x07\x1b[2J gone\nnew line".to_owned();
    let text = ask(&["events"], Reply::json(json(&vec![hostile]))).ok();
    assert!(!text.contains('\x1b') && !text.contains('\x07') && text.lines().count() == 1, "{text:?}");
    let mut views = regions();
    views[1].version = Some("\x1b[31m\n1".to_owned());
    let text = ask(&["regions"], Reply::json(json(&views))).ok();
    assert!(!text.contains('\x1b') && text.lines().count() == 4, "{text:?}");
    let mut hostile = problem(500, "internal", "\x1b[2Jboo");
    hostile.status = 500;
    let reply = Reply::Whole { status: "500 Internal", content_type: "application/problem+json", body: json(&hostile) };
    assert!(!ask(&["status"], reply).failed(1).contains('\x1b'));
}
