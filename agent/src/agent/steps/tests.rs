//! What the loop's parts are told by each other, through the real loop: its steps are taken one by one, on a clock that stands where it is put.

use super::*;
use crate::forecast::LEAN;
use crate::ingest::{Rules, parse};
use crate::mesh::PeerService;
use crate::staging::Linked;
use crate::testing::{Authority, Hand, mixed};
use crate::{history, mesh, negotiate, pool, prices, staging};
use async_trait::async_trait;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;
use tradewind_protocol::Quantile;
use tradewind_protocol::forecast::pinball;
use tradewind_protocol::wire::{Request, Response};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// Long enough that whoever waits for it is told from whoever does not.
const SETTLE: Duration = Duration::from_secs(30);

/// There are no other regions.
struct Nobody;

#[async_trait]
impl PeerService for Nobody {
    async fn handle(&self, _: &RegionId, _: Request) -> Response {
        Response::NotHeld
    }
}

/// The loop of an agent without pools and peers, and what it works with.
struct World {
    steps: StepLoop,
    progress: watch::Receiver<Progress>,
    clock: Arc<Hand>,
    config: Arc<Config>,
    history: HistoryHandle,
    events: EventLog,
    /// The step that runs.
    running: StepIndex,
    _files: (tempfile::TempDir, Authority),
}

impl World {
    /// With this `[forecast]`. The running step is the first of an hour.
    async fn new(forecast: &str) -> Self {
        let (authority, dir) = (Authority::new(7), tempfile::tempdir().unwrap());
        let tls = authority.server();
        let path = |path: &std::path::Path| toml::Value::from(path.to_str().unwrap()).to_string();
        let config = format!(
            "region = \"here\"\ncluster = \"test\"\nstep = \"60s\"\ndata_dir = {}\n[mesh]\nlisten = \"127.0.0.1:0\"\n\
             tls = {{ ca = {}, certificate = {}, key = {} }}\n[ingest]\nlateness = \"24h\"\n[planner]\nsettle = \"30s\"\n{forecast}",
            path(dir.path()),
            path(&tls.ca),
            path(&tls.certificate),
            path(&tls.key),
        );
        let config = Arc::new(Config::parse(&config, []).unwrap());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64;
        let clock = Arc::new(Hand(AtomicI64::new(now / HOUR * HOUR)));
        let env = Env { clock: clock.clone(), offload: Offload::Inline, ..Env::real(dir.path()).unwrap() };
        let events = EventLog::new(config.region.clone(), clock.clone());
        let store = Store::open(&env).await.unwrap();
        let (history, counting) = history::open(&env, &store, config.step, &config.region, &config.ingest).await.unwrap();
        tokio::spawn(counting.run());
        let pools = pool::Setup {
            pools: vec![],
            step: config.step,
            mode: config.mode,
            store: store.clone(),
            events: events.clone(),
            reservations: config.reservations.clone(),
        };
        let (region, cluster) = (config.region.clone(), config.cluster.clone());
        let mesh = mesh::start(&env, region, cluster, &config.mesh, 1, Arc::new(Nobody), events.clone()).await.unwrap();
        let (_, stopped) = watch::channel(false);
        let stages = staging::Parts {
            region: config.region.clone(),
            config: config.staging.clone(),
            store: store.clone(),
            stager: Arc::new(Linked { stager: env.stager.clone(), mesh: mesh.clone() }),
            events: events.clone(),
        };
        let (told, progress) = watch::channel(Progress::default());
        let parts = Parts {
            config: config.clone(),
            api_url: "http://here".into(),
            history: history.clone(),
            mesh,
            pool: PoolHandle::start(&env, pools).await.unwrap(),
            calendar: CalendarHandle::open(config.region.clone(), config.calendar.clone(), store.clone()).await.unwrap(),
            events: events.clone(),
            negotiator: negotiate::handle().0,
            staging: staging::open(&env, stages).await.unwrap().0,
            store: store.clone(),
            snapshots: Snapshots::open(&env).await,
            prices: prices::start(&config.prices, &store, (clock.clone(), env.offload), &stopped).await.0,
            past_prices: BTreeMap::new(),
        };
        let steps = StepLoop::new(&env, parts, told);
        let running = config.step.index(clock.now());
        Self { steps, progress, clock, config, history, events, running, _files: (dir, authority) }
    }

    /// Counts this to each destination in the steps from `first` on, then learns it as the agent does when it starts.
    async fn starts_after(&mut self, steps: i64, counts: impl Fn(i64) -> Vec<(&'static str, u64)>) {
        let records = (1..=steps).rev().flat_map(|back| self.records(self.running.offset(-back), &counts(steps - back)));
        self.count(&records.collect::<Vec<_>>()).await;
        self.steps.recall(self.running.offset(-1)).await.unwrap();
        self.steps.publish();
    }

    fn records(&self, step: StepIndex, counts: &[(&'static str, u64)]) -> Vec<String> {
        let time = self.config.step.start(step).as_millis();
        let record = |(to, count): &(&str, u64)| {
            format!(r#"{{"source_region":"here","destination_region":"{to}","timestamp":{time},"count":{count}}}"#)
        };
        counts.iter().map(record).collect()
    }

    async fn count(&self, records: &[String]) {
        let rules = Rules { region: &self.config.region, step: self.config.step, now: self.clock.now(), config: &self.config.ingest };
        let receipt = self.history.append(parse(records.join("\n").as_bytes(), &rules).unwrap(), None).await.unwrap();
        assert_eq!(receipt.refused, 0, "{receipt:?}");
    }

    /// The running step ends with these counts; how long the loop took over it.
    async fn step(&mut self, counts: &[(&'static str, u64)]) -> Duration {
        self.count(&self.records(self.running, counts)).await;
        self.running = self.running.offset(1);
        let now = self.config.step.start(self.running).after(self.config.ingest.close_after);
        self.clock.0.store(now.as_millis(), Ordering::Relaxed);
        let began = Instant::now();
        self.steps.step().await.unwrap();
        began.elapsed()
    }

    fn predictions(&self) -> Arc<Vec<PredictionData>> {
        self.progress.borrow().predictions.clone()
    }

    /// The destinations of series whose forecast is lean.
    fn lean(&self) -> Vec<String> {
        let predictions = self.predictions();
        let lean = predictions.iter().filter(|prediction| prediction.model == LEAN);
        lean.map(|prediction| prediction.series.destination.to_string()).collect()
    }

    fn has_told(&self, kind: &str) -> bool {
        self.events.since(0).iter().any(|event| event.kind == kind)
    }
}

/// Whole numbers in 0..100 that look random.
fn percent(at: i64) -> u64 {
    (mixed(at as u64) >> 32) % 100
}

/// A calm series and a wild one: what is published of each is as wide as both have needed, and not what its own lane says.
fn calm_and_wild(at: i64) -> Vec<(&'static str, u64)> {
    vec![("calm", 1_000 + percent(at) / 10), ("wild", percent(at * 31) * percent(at * 17))]
}

#[tokio::test(start_paused = true)]
async fn what_is_published_is_what_is_judged() {
    let mut world = World::new("[forecast]\nseason = 8\nhorizon = 3\n[forecast.global]\nmodels = []\n").await;
    world.starts_after(40, calm_and_wild).await;
    let judged_before = world.predictions()[1].score.steps as usize;
    let before = world.predictions()[1].score.pinball * judged_before as f64;
    let mut losses = vec![];
    for at in 40..70 {
        let published = world.predictions();
        let counts = calm_and_wild(at);
        world.step(&counts).await;
        let row = published[1].path.row(0).unwrap();
        let loss = Quantile::GRID.iter().zip(row).map(|(q, value)| pinball(*q, f64::from(*value), counts[1].1 as f64)).sum::<f64>();
        losses.push(loss / row.len() as f64);
    }
    let score = world.predictions()[1].score;
    assert_eq!(score.steps as usize, judged_before + losses.len());
    let sum = score.pinball * f64::from(score.steps) - before;
    let wanted = losses.iter().sum::<f64>();
    assert!((sum - wanted).abs() < 1e-6 * wanted, "judged {sum}, published {wanted}");
}

#[tokio::test(start_paused = true)]
async fn the_global_models_are_told_of_a_level_that_has_shifted() {
    let mut world = World::new("[forecast]\nseason = 400\nhorizon = 3\n").await;
    world.starts_after(400, |at| vec![("east", 100 + percent(at) / 10)]).await;
    for at in 400..440 {
        world.step(&[("east", 400 + percent(at) / 10)]).await;
        let shifted: Vec<_> = world.steps.globals.shifted().iter().map(|key| key.destination.to_string()).collect();
        assert_eq!(!shifted.is_empty(), world.has_told("anomaly.level_shift"), "step {at}");
    }
    assert!(world.has_told("anomaly.level_shift"), "{:?}", world.events.since(0));
}

#[tokio::test(start_paused = true)]
async fn only_a_surge_does_not_wait_for_what_the_others_foresee() {
    for (count, waits) in [(1_000, true), (2_000_000, false)] {
        let mut world = World::new("[forecast]\nseason = 50\nhorizon = 3\n[forecast.global]\nmodels = []\n").await;
        world.starts_after(400, |at| vec![("east", 100_000 + percent(at))]).await;
        assert!(world.step(&[("east", 100_050)]).await >= SETTLE);
        let took = world.step(&[("east", count)]).await;
        assert!(world.has_told("anomaly.point"), "{count}");
        assert_eq!(took >= SETTLE, waits, "{count}: {took:?}");
        assert!(world.step(&[("east", 100_050)]).await >= SETTLE);
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_series_have_all_experts_and_others_take_over_when_they_are_chosen_anew() {
    let mut world = World::new("[forecast]\nseason = 8\nhorizon = 3\nmax_series = 1\n[forecast.global]\nmodels = []\n").await;
    world.starts_after(30, |_| vec![("east", 10), ("north", 100), ("west", 50)]).await;
    assert_eq!(world.lean(), ["east", "west"]);
    let key = world.predictions()[0].series.clone();
    let (reply, answer) = oneshot::channel();
    world.steps.answer(Ask::Explain { keys: vec![key], reply }).await;
    let why = answer.await.unwrap().remove(0).unwrap();
    assert!(why.lanes[0].experts.iter().any(|expert| expert.silent.as_deref().is_some_and(|why| why.contains("beyond max_series"))));
    // Larger within the hour, and chosen at its end.
    for _ in 0..CHOOSE_EVERY {
        assert_eq!(world.lean(), ["east", "west"]);
        world.step(&[("east", 900), ("north", 100), ("west", 50)]).await;
    }
    for _ in 0..2 {
        world.step(&[("east", 900), ("north", 100), ("west", 50)]).await;
    }
    assert_eq!(world.lean(), ["north", "west"]);
}
