//! `[[pool.policy]]`: what operators lay down for a pool beside its demand.

use super::section::{Section, switch, text, texts, whole};
use crate::planner::{MINUTES_A_DAY, Policy, StepLimit, Weekly, When};
use std::collections::BTreeSet;
use toml::Value;
use tradewind_protocol::{PoolName, Timestamp};

/// The most policies of a pool: more than anybody can keep in mind.
const MAX_POLICIES: usize = 100;
/// As they are written, Monday first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Reads every `[[pool.policy]]`. Without an offset of its own, a schedule is told in hours `utc_offset_minutes` ahead of UTC.
pub(super) fn read(pool: &mut Section, utc_offset_minutes: i32) -> Vec<Policy> {
    let mut names = BTreeSet::new();
    let policies = pool.tables("policy", |s| {
        let policy = policy(s, utc_offset_minutes)?;
        if !names.insert(policy.name.clone()) {
            s.problem("name", &policy.name, "must differ from the names of the pool's other policies");
        }
        Some(policy)
    });
    if policies.len() > MAX_POLICIES {
        pool.problem("policy", format!("{} tables", policies.len()), format!("must be at most {MAX_POLICIES}"));
    }
    policies.into_iter().flatten().collect()
}

/// Policies narrow what the pool's own keys allow, and leave what it `promised`: its minima.
pub(super) fn fit(pool: &mut Section, policies: &[Policy], (min_instances, promised, max_instances): (u32, u32, u32)) {
    for (at, policy) in policies.iter().enumerate() {
        let key = |key: &str| format!("policy[{at}].{key}");
        if let Some(min) = policy.min_instances
            && !(min_instances..=max_instances).contains(&min)
        {
            let remedy = format!("must be between the pool's min_instances ({min_instances}) and max_instances ({max_instances})");
            pool.problem(&key("min_instances"), min, remedy);
        }
        if let Some(max) = policy.max_instances {
            let least = policy.min_instances.unwrap_or(0).max(promised);
            if !(least..=max_instances).contains(&max) {
                let remedy = format!("must be between min_instances and min_warm ({least}) and the pool's max_instances ({max_instances})");
                pool.problem(&key("max_instances"), max, remedy);
            }
        }
    }
}

fn policy(s: &mut Section, utc_offset_minutes: i32) -> Option<Policy> {
    // A pool's names and a policy's have the same alphabet, so that reasons stay readable.
    let name = s.required("name", "name the policy, like name = \"office-hours\"", text::<PoolName>);
    let when = when(s, utc_offset_minutes);
    let min_instances = s.optional("min_instances", whole(0u32, 100_000));
    let max_instances = s.optional("max_instances", whole(1u32, 100_000));
    let min_warm = s.optional("min_warm", whole(0u32, 100_000));
    let up = StepLimit {
        instances: s.optional("max_step_up", whole(1u32, 100_000)),
        percent: s.optional("max_step_up_percent", whole(1u32, 1_000_000)),
    };
    let down = StepLimit {
        instances: s.optional("max_step_down", whole(0u32, 100_000)),
        percent: s.optional("max_step_down_percent", whole(1u32, 100)),
    };
    let freeze = s.or("freeze", false, switch);
    let sets = min_instances.is_some() || max_instances.is_some() || min_warm.is_some();
    let steps = up != StepLimit::default() || down != StepLimit::default();
    if freeze && (sets || steps) {
        s.problem(
            "freeze",
            "true",
            "nothing is changed while it is in force: remove the other keys, or make a policy of their own of them",
        );
    } else if !freeze && !sets && !steps {
        let remedy = "the policy says nothing: give it min_instances, max_instances, min_warm, max_step_up, max_step_down \
                      (or one with _percent), or freeze = true";
        s.problem("name", name.as_ref().map_or("(missing)", |name| name.as_str()), remedy);
    }
    Some(Policy { name: name?.to_string(), when: when?, min_instances, max_instances, min_warm, up, down, freeze })
}

/// A bound of the time in which a policy is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// Minutes of the day, up to 1440.
    Clock(u16),
    Moment(Timestamp),
}

fn when(s: &mut Section, utc_offset_minutes: i32) -> Option<When> {
    let weekly = s.has("days") || s.has("utc_offset_minutes");
    let bounded = s.has("from") || s.has("until");
    let days = s.or("days", [true; 7], days);
    let utc_offset_minutes = s.or("utc_offset_minutes", utc_offset_minutes, whole(super::calendar::OFFSETS.0, super::calendar::OFFSETS.1));
    if !bounded {
        s.optional("from", bound);
        s.optional("until", bound);
        let all_day = Weekly { days, from: 0, until: 0, utc_offset_minutes };
        return Some(if weekly { When::Weekly(all_day) } else { When::Always });
    }
    let from = s.required("from", "when it begins, like from = \"08:00\", beside until", bound);
    let until = s.required("until", "when it ends, like until = \"18:00\", beside from", bound);
    match (from?, until?) {
        (Bound::Clock(from), Bound::Clock(until)) if from < MINUTES_A_DAY => {
            Some(When::Weekly(Weekly { days, from, until, utc_offset_minutes }))
        }
        (Bound::Clock(_), Bound::Clock(_)) => {
            s.problem("from", "\"24:00\"", "must be before 24:00: write 00:00 of the next day");
            None
        }
        (Bound::Moment(from), Bound::Moment(_)) if weekly => {
            s.problem("from", from, "days and utc_offset_minutes go with times of day like \"08:00\": remove them, or write one");
            None
        }
        (Bound::Moment(from), Bound::Moment(until)) if from < until => Some(When::Between(from, until)),
        (Bound::Moment(from), Bound::Moment(until)) => {
            s.problem("until", until, format!("must be after from, which is {from}"));
            None
        }
        (Bound::Clock(_), Bound::Moment(at)) | (Bound::Moment(at), Bound::Clock(_)) => {
            s.problem("from", at, "from and until must both be times of day like \"08:00\", or both times like \"2026-03-01T08:00:00Z\"");
            None
        }
    }
}

fn days(value: &Value) -> Result<[bool; 7], String> {
    let wanted = || format!("must be a list of days, like [\"mon\", \"tue\"], out of {}", DAYS.join(", "));
    let mut days = [false; 7];
    for name in texts(value).map_err(|_| wanted())? {
        let at = DAYS.iter().position(|day| *day == name).ok_or_else(wanted)?;
        days[at] = true;
    }
    if days.contains(&true) { Ok(days) } else { Err(wanted()) }
}

fn bound(value: &Value) -> Result<Bound, String> {
    let written = match value {
        Value::Datetime(time) => time.to_string(),
        other => other.as_str().unwrap_or_default().to_string(),
    };
    if let Some(minutes) = clock(&written) {
        return Ok(Bound::Clock(minutes));
    }
    let wanted = |_| "must be a time of day like \"08:00\", or a time like \"2026-03-01T08:00:00Z\"".to_string();
    super::calendar::time(value).map(Bound::Moment).map_err(wanted)
}

/// `08:00` and `08:00:00` in minutes.
fn clock(text: &str) -> Option<u16> {
    let (hours, minutes) = text.strip_suffix(":00").filter(|rest| rest.contains(':')).unwrap_or(text).split_once(':')?;
    let two =
        |digits: &str| (digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse::<u16>().ok()).flatten();
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (minutes < 60 && hours * 60 + minutes <= MINUTES_A_DAY).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(policies: &str) -> Result<Config, String> {
        let text = format!(
            "region = \"eu\"\ndata_dir = \"/tmp/tw\"\n[mesh]\nlisten = \"127.0.0.1:7470\"\ntls = {{ ca = \"a\", certificate = \"b\", key = \"c\" }}\n\
             [calendar]\nutc_offset_minutes = 60\n[[pool]]\nmin_instances = 1\nmax_instances = 10\nrate_per_instance = 1\n\
             instance_hour_usd = 0.5\nprocess = {{ command = [\"w\"] }}\ninstance = {{ cpu_millis = 1 }}\n{policies}"
        );
        Config::parse(&text, []).map_err(|error| error.to_string())
    }

    #[test]
    fn schedules_spans_steps_and_freezes_are_read() {
        let text = "[[pool.policy]]\nname = \"office\"\ndays = [\"mon\", \"fri\"]\nfrom = \"08:00\"\nuntil = 18:30:00\nmin_instances = 4\n\
            [[pool.policy]]\nname = \"night\"\nfrom = \"22:00\"\nuntil = \"06:00\"\nutc_offset_minutes = -300\nmax_instances = 3\n\
            [[pool.policy]]\nname = \"gently\"\nmax_step_up = 5\nmax_step_down_percent = 10\n\
            [[pool.policy]]\nname = \"release\"\nfrom = 2026-12-23T00:00:00Z\nuntil = \"2027-01-02T00:00:00Z\"\nfreeze = true\n";
        let policies = &parse(text).unwrap().pools[0].policies;
        let days = [true, false, false, false, true, false, false];
        assert_eq!(policies[0].when, When::Weekly(Weekly { days, from: 480, until: 1_110, utc_offset_minutes: 60 }));
        assert_eq!(policies[1].when, When::Weekly(Weekly { days: [true; 7], from: 1_320, until: 360, utc_offset_minutes: -300 }));
        assert_eq!((policies[2].when, policies[2].up.instances, policies[2].down.percent), (When::Always, Some(5), Some(10)));
        assert!(policies[3].freeze && matches!(policies[3].when, When::Between(..)));
    }

    #[test]
    fn every_mistake_of_a_policy_names_its_key_and_a_remedy() {
        let cases = [
            ("name = \"a\"", "pool[0].policy[0].name = a: the policy says nothing"),
            ("freeze = true", "pool[0].policy[0].name = (missing)"),
            ("name = \"a\"\nfreeze = true\nmin_warm = 1", "pool[0].policy[0].freeze = true: nothing is changed"),
            ("name = \"a\"\nmin_warm = 1\nfrom = \"08:00\"", "pool[0].policy[0].until = (missing)"),
            ("name = \"a\"\nmin_warm = 1\nfrom = \"8 am\"\nuntil = \"09:00\"", "pool[0].policy[0].from = \"8 am\": must be a time of day"),
            ("name = \"a\"\nmin_warm = 1\nfrom = \"08:00\"\nuntil = \"2026-03-01T08:00:00Z\"", "must both be"),
            ("name = \"a\"\nmin_warm = 1\nfrom = \"2026-03-02T08:00:00Z\"\nuntil = \"2026-03-01T08:00:00Z\"", "must be after from"),
            ("name = \"a\"\nmin_warm = 1\ndays = [\"monday\"]", "pool[0].policy[0].days = [\"monday\"]: must be a list of days"),
            (
                "name = \"a\"\nmax_instances = 11",
                "pool[0].policy[0].max_instances = 11: must be between min_instances and min_warm (1) and",
            ),
            ("name = \"a\"\nmin_instances = 0", "pool[0].policy[0].min_instances = 0: must be between the pool's min_instances (1)"),
            ("name = \"a\"\nmax_step = 3\nmin_warm = 1", "pool[0].policy[0].max_step = 3: unknown key"),
            ("name = \"a\"\nmin_warm = 1\n[[pool.policy]]\nname = \"a\"\nmin_warm = 2", "must differ"),
        ];
        for (policy, wanted) in cases {
            let error = parse(&format!("[[pool.policy]]\n{policy}\n")).unwrap_err();
            assert!(error.contains(wanted), "{wanted} in {error}");
        }
    }

    #[test]
    fn a_budget_pays_for_the_minima() {
        assert!(parse("max_cost_per_hour_usd = 0.5\n").is_ok());
        let error = parse("max_cost_per_hour_usd = 0.4\n").unwrap_err();
        assert!(error.contains("pool[0].max_cost_per_hour_usd = 0.4: must pay for min_instances and min_warm, 1 at 0.5 each"), "{error}");
        let error = parse("[planner]\nmax_cost_per_hour_usd = 0.4\n").unwrap_err();
        assert!(error.contains("planner.max_cost_per_hour_usd = 0.4: must be at least 0.5"), "{error}");
    }
}
