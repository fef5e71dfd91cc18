//! The world outside: it does what it is told, counts how often, and answers as badly as the world does.
//!
//! It lives in the harness itself and never dies, so that what it counted is the truth.

use super::http::{Asked, Say, serve};
use serde_json::json;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The effects it has, by the class that fits them.
pub(super) const EFFECTS: [&str; 4] = ["charge", "record", "ticket", "email"];

/// How often what took place.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By effect and order: how often it took place.
    took_place: BTreeMap<(&'static str, String), u32>,
    /// The first result under each key it has seen.
    by_key: BTreeMap<String, String>,
    /// Calls that came in.
    pub(super) calls: u64,
    /// Calls answered badly on purpose.
    pub(super) spoilt: u64,
    draws: u64,
}

impl Counts {
    /// How often this took place for this order.
    pub(super) fn of(&self, effect: &'static str, order: &str) -> u32 {
        self.took_place.get(&(effect, order.to_owned())).copied().unwrap_or(0)
    }
}

/// Where it listens, and what it has counted.
#[derive(Clone)]
pub(super) struct Downstream {
    pub(super) address: SocketAddr,
    counts: Arc<Mutex<Counts>>,
}

/// How a call is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Slowly,
    /// Nothing happens, and it says so.
    Busy,
    /// It happens, and nobody hears of it.
    CutAfter,
    /// It happens, and is said to have failed.
    ErrorAfter,
    /// Nothing happens, and nobody hears of it.
    CutBefore,
}

impl Downstream {
    /// Starts it. `seed` decides its moods.
    pub(super) fn start(seed: u64) -> Result<Self, String> {
        let counts = Arc::new(Mutex::new(Counts { draws: seed, ..Counts::default() }));
        let shared = counts.clone();
        let address = serve(Arc::new(move |asked| answer(&shared, asked)))?;
        Ok(Downstream { address, counts })
    }

    /// What it has counted until now.
    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(counts: &Mutex<Counts>, asked: &Asked) -> Say {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    counts.calls += 1;
    let order = asked.body["order_id"].as_str().unwrap_or_default().to_owned();
    let well = |body: serde_json::Value| Say::Json { after: Duration::ZERO, status: 200, body: body.to_string() };
    match asked.path.as_str() {
        "/orders" => well(json!({ "order_id": order, "amount": 40 + order.len() })),
        "/tickets/find" => {
            let found = counts.of("ticket", &order);
            well(json!({ "found": found > 0, "ticket": format!("t-{order}") }))
        }
        path => {
            let Some(effect) = EFFECTS.into_iter().find(|effect| path.trim_start_matches('/') == *effect) else {
                return Say::Json { after: Duration::ZERO, status: 404, body: "{}".into() };
            };
            take_place(&mut counts, effect, order, asked.header("idempotency-key"))
        }
    }
}

fn take_place(counts: &mut Counts, effect: &'static str, order: String, key: Option<&str>) -> Say {
    let mood = mood(counts);
    if mood != Mood::Well {
        counts.spoilt += 1;
    }
    match mood {
        Mood::CutBefore => return Say::Cut,
        Mood::Busy => return Say::Json { after: Duration::ZERO, status: 503, body: r#"{"error":"busy"}"#.into() },
        Mood::Well | Mood::Slowly | Mood::CutAfter | Mood::ErrorAfter => {}
    }
    // Only some receivers keep keys: those of the class `keyed`, and the database of the class `tx`.
    let keeps_keys = matches!(effect, "charge" | "record");
    let known = key.filter(|_| keeps_keys).and_then(|key| counts.by_key.get(key).cloned());
    let body = known.unwrap_or_else(|| {
        let times = counts.took_place.entry((effect, order.clone())).or_default();
        *times += 1;
        let body = json!({ "done": format!("{effect}-{order}-{times}") }).to_string();
        if let Some(key) = key.filter(|_| keeps_keys) {
            counts.by_key.insert(key.to_owned(), body.clone());
        }
        body
    });
    match mood {
        Mood::CutAfter => Say::Cut,
        Mood::ErrorAfter => Say::Json { after: Duration::ZERO, status: 500, body: r#"{"error":"oops"}"#.into() },
        Mood::Slowly => Say::Json { after: Duration::from_millis(400), status: 200, body },
        Mood::Well | Mood::Busy | Mood::CutBefore => Say::Json { after: Duration::from_millis(5), status: 200, body },
    }
}

fn mood(counts: &mut Counts) -> Mood {
    counts.draws = counts.draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = counts.draws;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    match (z ^ (z >> 31)) % 100 {
        0..3 => Mood::CutBefore,
        3..6 => Mood::Busy,
        6..9 => Mood::CutAfter,
        9..11 => Mood::ErrorAfter,
        11..26 => Mood::Slowly,
        _ => Mood::Well,
    }
}
