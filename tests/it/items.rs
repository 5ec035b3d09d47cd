//! Items and the pages they are on, without code: after a write is acknowledged no stale page is ever served, whatever the lists,
//! filters, orders and mutations. Compared with the origin's own truth.
//!
//! `BRIM_ITEMS_CASES` runs more cases, `BRIM_ITEMS_SEED` begins elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brim_tests::{Answer, FakeOrigin, Recorded, Reply, TestNode, ok, plugins, status};
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

const IDS: u64 = 9;

/// Numbers that a seed decides.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// The origin's truth: items by id.
#[derive(Debug, Default, Clone)]
struct Catalogue {
    items: BTreeMap<u64, (u64, String)>,
}

impl Catalogue {
    fn shown(id: u64, (price, colour): &(u64, String)) -> Value {
        json!({ "id": id, "price": price, "colour": colour })
    }

    fn page(&self, query: &str) -> Value {
        let parameters: BTreeMap<&str, &str> =
            query.split('&').filter_map(|parameter| parameter.split_once('=')).collect();
        let number =
            |name: &str, default: usize| parameters.get(name).map_or(default, |text| text.parse().unwrap_or(default));
        let colour = parameters.get("colour");
        let mut found: Vec<_> =
            self.items.iter().filter(|(_, item)| colour.is_none_or(|colour| item.1 == **colour)).collect();
        match parameters.get("sort") {
            Some(&"price") => found.sort_by_key(|(id, item)| (item.0, **id)),
            Some(&"-price") => found.sort_by_key(|(id, item)| (u64::MAX - item.0, **id)),
            _ => {}
        }
        let (page, limit) = (number("page", 1).max(1), number("limit", 3));
        let items: Vec<Value> =
            found.iter().skip((page - 1) * limit).take(limit).map(|(id, item)| Self::shown(**id, item)).collect();
        json!({ "total": found.len(), "data": { "items": items } })
    }

    /// The answer to a request, and what it does.
    fn answer(&mut self, method: &Method, target: &str, content: &[u8]) -> Reply {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let id = path.strip_prefix("/api/items/").and_then(|id| id.parse::<u64>().ok());
        let sent: Value = serde_json::from_slice(content).unwrap_or_default();
        let item = || (sent["price"].as_u64().unwrap_or(0), sent["colour"].as_str().unwrap_or("none").to_owned());
        let cached = |value: &Value| {
            let reply = ok(value.to_string()).cache_control("max-age=600").header("content-type", "application/json");
            // A form of the same page, not another selection.
            reply.vary("Accept-Language")
        };
        match (method.as_str(), id) {
            ("GET", None) => cached(&self.page(query)),
            ("GET", Some(id)) => match self.items.get(&id) {
                Some(item) => cached(&Self::shown(id, item)),
                None => status(404).cache_control("max-age=600"),
            },
            ("POST", None) => {
                let Some(id) = (1..=IDS).find(|id| !self.items.contains_key(id)) else { return status(409) };
                self.items.insert(id, item());
                status(201).header("location", &format!("/api/items/{id}"))
            }
            ("PUT", Some(id)) => match self.items.insert(id, item()) {
                Some(_) => status(204),
                None => status(201),
            },
            ("PATCH", Some(id)) => match self.items.get_mut(&id) {
                Some(known) => {
                    *known = item();
                    ok(Self::shown(id, known).to_string())
                }
                None => status(404),
            },
            ("DELETE", Some(id)) => status(if self.items.remove(&id).is_some() { 204 } else { 404 }),
            // Everything becomes cheaper.
            ("POST", Some(_)) => {
                self.items.values_mut().for_each(|item| item.0 /= 2);
                ok("{}")
            }
            _ => status(405),
        }
    }
}

struct World {
    truth: Arc<Mutex<Catalogue>>,
    _origin: FakeOrigin,
    node: TestNode,
}

const PLUGIN: &str =
    "[plugins.config.rule]\ntype = \"item\"\nlist = \"/data/items\"\nid = \"/id\"\npath = \"/api/items\"\n";
const RULE: &str = "[sites.routes.items]\nlist = \"/data/items\"\nid = \"/id\"\ntype = \"item\"\n";

/// The rule for items of the node, or of the plugin `rest-tags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Node,
    Plugin,
}

async fn world(by: By) -> World {
    let truth = Arc::new(Mutex::new(Catalogue::default()));
    let origin = FakeOrigin::start().await;
    let paths = (1..=IDS).map(|id| format!("/api/items/{id}")).chain(["/api/items".to_owned()]);
    for path in paths {
        let truth = truth.clone();
        origin.answer_content(&path, move |request: &Recorded| {
            truth.lock().answer(&request.method, &request.target, &request.content)
        });
    }
    let config = match by {
        By::Node => TestNode::config(&origin, "", RULE),
        By::Plugin => TestNode::config(&origin, "plugins = { invalidation = \"rule\" }", PLUGIN),
    };
    let node = TestNode::start(&config.replacen("path = \"/\"", "path = \"/api/items\"", 1)).await;
    if by == By::Plugin {
        node.activate_plugin("rule", plugins::rest_tags()).await;
    }
    World { truth, node, _origin: origin }
}

fn some_colour(random: &mut Random) -> &'static str {
    if random.below(2) == 0 { "red" } else { "blue" }
}

fn some_page(random: &mut Random) -> String {
    let mut parameters = Vec::new();
    if random.below(2) == 0 {
        parameters.push(format!("page={}", 1 + random.below(3)));
    }
    if random.below(3) == 0 {
        parameters.push(format!("limit={}", 2 + random.below(3)));
    }
    match random.below(6) {
        0 => parameters.push("sort=price".to_owned()),
        1 => parameters.push("sort=-price".to_owned()),
        2 | 3 => parameters.push(format!("colour={}", some_colour(random))),
        _ => {}
    }
    match parameters.len() {
        0 => "/api/items".to_owned(),
        _ => format!("/api/items?{}", parameters.join("&")),
    }
}

fn some_write(random: &mut Random) -> (Method, String, String) {
    let (id, price, colour) = (1 + random.below(IDS), random.below(5), some_colour(random));
    let content = json!({ "price": price, "colour": colour }).to_string();
    let item = format!("/api/items/{id}");
    match random.below(11) {
        0..=2 => (Method::POST, "/api/items".to_owned(), content),
        3..=5 => (Method::PUT, item, content),
        6..=7 => (Method::PATCH, item, content),
        8..=9 => (Method::DELETE, item, String::new()),
        _ => (Method::POST, item, content),
    }
}

/// Whether an answer is what the origin would say now.
fn assert_true(seed: u64, truth: &Mutex<Catalogue>, target: &str, answer: &Answer) {
    let mut now = truth.lock().clone();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path.strip_prefix("/api/items/") {
        None => assert_eq!(answer.json(), now.page(query), "seed {seed}: {target} is stale: {}", answer.head()),
        Some(id) => {
            let item = now.items.remove(&id.parse().expect("a number"));
            let code = if item.is_some() { 200 } else { 404 };
            assert_eq!(answer.status.as_u16(), code, "seed {seed}: {target} is stale: {}", answer.head());
            if let Some((price, colour)) = item {
                let shown = answer.json();
                assert_eq!(
                    (&shown["price"], &shown["colour"]),
                    (&json!(price), &json!(colour)),
                    "seed {seed}: {target} is stale"
                );
            }
        }
    }
}

/// Random reads and writes, reads racing with each write among them; after each acknowledgement everything that was ever asked
/// for is compared with the truth. Returns hits and reads.
async fn run(by: By, seed: u64, steps: usize) -> (usize, usize) {
    let World { truth, node, _origin } = world(by).await;
    let mut random = Random(seed);
    let mut asked = BTreeSet::new();
    let (mut hits, mut reads) = (0, 0);
    for _ in 0..steps {
        for _ in 0..2 {
            asked.insert(some_page(&mut random));
        }
        asked.insert(format!("/api/items/{}", 1 + random.below(IDS)));
        let (method, target, content) = some_write(&mut random);
        // Fetches that begin before, while and after the origin changes: what of them is stored must not outlive the answer.
        let racing: Vec<_> =
            asked.iter().map(|target| tokio::spawn(node.client().clone().ask(Method::GET, target).send())).collect();
        node.ask(method, &target).content(content).send().await;
        for target in &asked {
            let answer = node.get(target).await;
            assert_true(seed, &truth, target, &answer);
            reads += 1;
        }
        for answer in racing {
            answer.await.expect("a read ends");
        }
        node.settled().await;
        for target in &asked {
            let answer = node.get(target).await;
            assert_true(seed, &truth, target, &answer);
            reads += 1;
            hits += usize::from(answer.cache_status().hit);
        }
    }
    (hits, reads)
}

async fn play(by: By) {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let first = number("BRIM_ITEMS_SEED", 1);
    let (mut hits, mut reads) = (0, 0);
    for seed in first..first + number("BRIM_ITEMS_CASES", 6) {
        let (some_hits, some_reads) = run(by, seed, 12).await;
        hits += some_hits;
        reads += some_reads;
    }
    assert!(hits * 4 > reads, "pages that a write leaves alone stay: {hits} hits of {reads} reads by {by:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stale_page_is_served_after_a_write_is_acknowledged() {
    play(By::Node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stale_page_is_served_by_the_plugin_either() {
    play(By::Plugin).await;
}

/// The point of keys by item: a change of one leaves the pages without it.
#[tokio::test]
async fn a_change_of_an_item_leaves_the_pages_without_it() {
    for by in [By::Node, By::Plugin] {
        leaves_the_pages_without_it(by).await;
    }
}

async fn leaves_the_pages_without_it(by: By) {
    let World { truth, node, _origin } = world(by).await;
    for id in 1..=6 {
        truth.lock().items.insert(id, (id, "red".to_owned()));
    }
    let pages = ["/api/items?page=1", "/api/items?page=2", "/api/items?colour=red", "/api/items/2", "/api/items/5"];
    for page in pages {
        node.get(page).await.assert_stored();
    }
    node.settled().await;
    let content = json!({ "price": 9, "colour": "red" }).to_string();
    node.ask(Method::PUT, "/api/items/5").content(content).send().await.assert_status(204);
    for (page, is_hit) in pages.into_iter().zip([true, false, false, true, false]) {
        assert_eq!(node.get(page).await.cache_status().hit, is_hit, "{page}");
    }
    node.settled().await;
    node.ask(Method::DELETE, "/api/items/6").send().await.assert_status(204);
    for (page, is_hit) in pages.into_iter().zip([false, false, false, true, true]) {
        assert_eq!(node.get(page).await.cache_status().hit, is_hit, "{page} after a deletion");
    }
}
