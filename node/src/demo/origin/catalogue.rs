//! The catalogue: products made from a seed, held in memory, changed by writes.
//!
//! Always true:
//! - The same seed and count give the same products, byte for byte, on every machine.
//! - A product's version grows with every write to it, and an id is never given twice.
//! - At most [`PRODUCTS_MAX`] products are held; a write beyond that is refused.
//! - The lock is held for the lookup alone, never across an await.
//!
//! Not here: how products become JSON, paging links or fields (`products`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use serde::Deserialize;

use super::language::Language;

/// More than any demo needs, and still a small share of memory (about 300 bytes each).
pub(super) const PRODUCTS_MAX: usize = 100_000;
/// A name longer than this is refused: it would only make lists unreadable.
pub(super) const NAME_BYTES_MAX: usize = 200;

const SEED: u64 = 0x6272_696d_2064_656d;
/// 2026-01-01T00:00:00Z, the moment the first product was last modified.
const EPOCH_SECONDS: u64 = 1_767_225_600;

/// The categories, each with the nouns of its products in both languages.
pub(super) const CATEGORIES: [(&str, [(&str, &str); 4]); 6] = [
    ("bags", [("backpack", "Rucksack"), ("tote", "Tragetasche"), ("satchel", "Umhängetasche"), ("case", "Koffer")]),
    ("books", [("atlas", "Atlas"), ("notebook", "Notizbuch"), ("cookbook", "Kochbuch"), ("diary", "Tagebuch")]),
    ("garden", [("spade", "Spaten"), ("watering can", "Gießkanne"), ("lantern", "Laterne"), ("bench", "Bank")]),
    ("kitchen", [("kettle", "Kessel"), ("teapot", "Teekanne"), ("grinder", "Mühle"), ("pan", "Pfanne")]),
    ("office", [("lamp", "Leuchte"), ("desk", "Schreibtisch"), ("chair", "Stuhl"), ("shelf", "Regal")]),
    ("outdoor", [("tent", "Zelt"), ("stove", "Kocher"), ("hammock", "Hängematte"), ("flask", "Flasche")]),
];
const KINDS: [(&str, &str); 8] = [
    ("Amber", "Bernstein"),
    ("Copper", "Kupfer"),
    ("Granite", "Granit"),
    ("Harbour", "Hafen"),
    ("Juniper", "Wacholder"),
    ("Linen", "Leinen"),
    ("Meadow", "Wiesen"),
    ("Nordic", "Nord"),
];

/// One product. Prices are whole cents, so that no answer depends on rounding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Product {
    pub(super) id: u32,
    pub(super) name_en: String,
    pub(super) name_de: String,
    pub(super) category: &'static str,
    pub(super) price_cents: u32,
    pub(super) stock: u32,
    pub(super) version: u32,
    pub(super) modified: SystemTime,
}

impl Product {
    pub(super) fn name(&self, language: Language) -> &str {
        match language {
            Language::English => &self.name_en,
            Language::German => &self.name_de,
        }
    }

    /// Product `id` of the seed.
    fn seeded(id: u32) -> Self {
        let mut dice = SplitMix(SEED ^ (u64::from(id) << 20));
        let (category, nouns) = CATEGORIES[dice.below(CATEGORIES.len())];
        let (noun_en, noun_de) = nouns[dice.below(nouns.len())];
        let (kind_en, kind_de) = KINDS[dice.below(KINDS.len())];
        Self {
            id,
            name_en: format!("{kind_en} {noun_en} {id}"),
            name_de: format!("{kind_de}-{noun_de} {id}"),
            category,
            price_cents: 499 + 50 * dice.below_u32(400),
            stock: dice.below_u32(120),
            version: 1,
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH_SECONDS + u64::from(id) * 60),
        }
    }
}

/// What a list is ordered by; the id breaks ties, so that pages never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    #[default]
    Id,
    Name,
    Price,
}

/// Which products a list holds, in which order, and which part of it is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection<'a> {
    pub(super) category: Option<&'a str>,
    /// Lower case; matched anywhere in either name.
    pub(super) words: Option<&'a str>,
    pub(super) sort: Sort,
    pub(super) descending: bool,
    pub(super) offset: usize,
    pub(super) limit: usize,
}

/// A part of a list, and how long the whole list is.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) items: Vec<Arc<Product>>,
    pub(super) total: usize,
}

/// What a write sends. A new or replaced product needs name, category and price; a change names what it changes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Draft {
    pub(super) name: Option<String>,
    pub(super) name_de: Option<String>,
    pub(super) category: Option<String>,
    pub(super) price_cents: Option<u32>,
    pub(super) stock: Option<u32>,
}

/// Why a write was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WriteError {
    #[error("no such product")]
    Unknown,
    #[error("`name`, `category` and `price_cents` are needed")]
    Incomplete,
    #[error("`name` is empty or longer than {NAME_BYTES_MAX} bytes")]
    Name,
    #[error("`category` is none of bags, books, garden, kitchen, office, outdoor")]
    Category,
    #[error("the catalogue is full: {PRODUCTS_MAX} products")]
    Full,
    #[error("the product is not in the state named by If-Match")]
    Precondition,
}

/// All products, and the next id.
#[derive(Debug)]
pub(super) struct Catalogue {
    shelf: RwLock<Shelf>,
}

#[derive(Debug)]
struct Shelf {
    products: BTreeMap<u32, Arc<Product>>,
    next_id: u32,
}

impl Catalogue {
    /// Products 1 to `count` of the seed; a count above [`PRODUCTS_MAX`] is cut down to it.
    pub(super) fn seeded(count: usize) -> Self {
        let last = u32::try_from(count.min(PRODUCTS_MAX)).unwrap_or(u32::MAX);
        let products = (1..=last).map(|id| (id, Arc::new(Product::seeded(id)))).collect();
        Self { shelf: RwLock::new(Shelf { products, next_id: last + 1 }) }
    }

    pub(super) fn get(&self, id: u32) -> Option<Arc<Product>> {
        self.shelf.read().products.get(&id).cloned()
    }

    pub(super) fn select(&self, selection: &Selection<'_>) -> Part {
        let mut found: Vec<_> = {
            let shelf = self.shelf.read();
            shelf.products.values().filter(|product| selection.holds(product)).cloned().collect()
        };
        match selection.sort {
            Sort::Id => {}
            Sort::Name => found.sort_by(|a, b| a.name_en.cmp(&b.name_en).then(a.id.cmp(&b.id))),
            Sort::Price => found.sort_by_key(|product| (product.price_cents, product.id)),
        }
        if selection.descending {
            found.reverse();
        }
        let total = found.len();
        Part { items: found.into_iter().skip(selection.offset).take(selection.limit).collect(), total }
    }

    /// Cents in stock by category, for the report.
    pub(super) fn worth_by_category(&self) -> BTreeMap<&'static str, u64> {
        let mut worth = BTreeMap::new();
        for product in self.shelf.read().products.values() {
            *worth.entry(product.category).or_insert(0) += u64::from(product.price_cents) * u64::from(product.stock);
        }
        worth
    }

    pub(super) fn create(&self, draft: Draft, now: SystemTime) -> Result<Arc<Product>, WriteError> {
        let mut shelf = self.shelf.write();
        if shelf.products.len() >= PRODUCTS_MAX {
            return Err(WriteError::Full);
        }
        let id = shelf.next_id;
        let product = Arc::new(draft.whole(id, 1, now)?);
        shelf.next_id = id.checked_add(1).ok_or(WriteError::Full)?;
        shelf.products.insert(id, Arc::clone(&product));
        Ok(product)
    }

    /// Replaces the product with what `edit` makes of it, unless `allowed` refuses its current state.
    pub(super) fn edit(
        &self,
        id: u32,
        allowed: impl FnOnce(&Product) -> bool,
        edit: impl FnOnce(&Product) -> Result<Product, WriteError>,
    ) -> Result<Arc<Product>, WriteError> {
        let mut shelf = self.shelf.write();
        let held = shelf.products.get_mut(&id).ok_or(WriteError::Unknown)?;
        if !allowed(held) {
            return Err(WriteError::Precondition);
        }
        *held = Arc::new(edit(held)?);
        Ok(Arc::clone(held))
    }

    pub(super) fn delete(&self, id: u32, allowed: impl FnOnce(&Product) -> bool) -> Result<(), WriteError> {
        let mut shelf = self.shelf.write();
        let held = shelf.products.get(&id).ok_or(WriteError::Unknown)?;
        if !allowed(held) {
            return Err(WriteError::Precondition);
        }
        shelf.products.remove(&id);
        Ok(())
    }
}

impl Selection<'_> {
    fn holds(&self, product: &Product) -> bool {
        self.category.is_none_or(|category| category == product.category)
            && self.words.is_none_or(|words| {
                product.name_en.to_lowercase().contains(words) || product.name_de.to_lowercase().contains(words)
            })
    }
}

impl Draft {
    /// A whole product, for POST and PUT.
    pub(super) fn whole(self, id: u32, version: u32, now: SystemTime) -> Result<Product, WriteError> {
        let (Some(name), Some(category), Some(price_cents)) = (self.name, self.category, self.price_cents) else {
            return Err(WriteError::Incomplete);
        };
        let name_en = checked_name(name)?;
        Ok(Product {
            id,
            name_de: self.name_de.map_or_else(|| Ok(name_en.clone()), checked_name)?,
            name_en,
            category: checked_category(&category)?,
            price_cents,
            stock: self.stock.unwrap_or(0),
            version,
            modified: now,
        })
    }

    /// `product` with what the draft names changed, for PATCH.
    pub(super) fn changed(self, product: &Product, now: SystemTime) -> Result<Product, WriteError> {
        Ok(Product {
            id: product.id,
            name_en: self.name.map_or_else(|| Ok(product.name_en.clone()), checked_name)?,
            name_de: self.name_de.map_or_else(|| Ok(product.name_de.clone()), checked_name)?,
            category: self.category.map_or(Ok(product.category), |name| checked_category(&name))?,
            price_cents: self.price_cents.unwrap_or(product.price_cents),
            stock: self.stock.unwrap_or(product.stock),
            version: product.version.wrapping_add(1),
            modified: now,
        })
    }
}

fn checked_name(name: String) -> Result<String, WriteError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX { Err(WriteError::Name) } else { Ok(name) }
}

fn checked_category(name: &str) -> Result<&'static str, WriteError> {
    CATEGORIES.iter().map(|(category, _)| *category).find(|category| *category == name).ok_or(WriteError::Category)
}

/// SplitMix64: a fixed sequence for each seed.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below_u32(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound)).unwrap_or(0)
    }

    /// `bound` is the length of one of the small tables above.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next()).map_or(0, |number| number % bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Selection<'_> =
        Selection { category: None, words: None, sort: Sort::Id, descending: false, offset: 0, limit: usize::MAX };

    fn draft(name: &str) -> Draft {
        Draft { name: Some(name.into()), category: Some("books".into()), price_cents: Some(100), ..Draft::default() }
    }

    #[test]
    fn the_seed_gives_the_same_products_every_time() {
        let (one, two) = (Catalogue::seeded(2_000), Catalogue::seeded(2_000));
        assert_eq!(one.select(&ALL).items, two.select(&ALL).items);
        let first = one.get(1).expect("product 1 is of the seed");
        assert_eq!((first.name_en.as_str(), first.category, first.price_cents), ("Meadow spade 1", "garden", 13_499));
    }

    #[test]
    fn every_category_has_products() {
        let catalogue = Catalogue::seeded(2_000);
        for (category, _) in CATEGORIES {
            let part = catalogue.select(&Selection { category: Some(category), ..ALL });
            assert!(part.total > 100, "{category}: {}", part.total);
        }
    }

    #[test]
    fn pages_do_not_overlap_whatever_the_order() {
        let catalogue = Catalogue::seeded(500);
        for sort in [Sort::Id, Sort::Name, Sort::Price] {
            for descending in [false, true] {
                let mut seen: Vec<u32> = (0..5)
                    .flat_map(|page| {
                        let selection = Selection { sort, descending, offset: page * 100, limit: 100, ..ALL };
                        catalogue.select(&selection).items.into_iter().map(|product| product.id)
                    })
                    .collect();
                seen.sort_unstable();
                assert_eq!(seen, (1..=500).collect::<Vec<_>>(), "{sort:?} {descending}");
            }
        }
    }

    #[test]
    fn a_write_raises_the_version_and_an_id_is_never_given_twice() {
        let catalogue = Catalogue::seeded(3);
        let now = SystemTime::UNIX_EPOCH;
        let made = catalogue.create(draft("Fourth"), now).expect("room for one more");
        assert_eq!((made.id, made.version), (4, 1));
        let edited = catalogue
            .edit(4, |_| true, |held| Draft { stock: Some(7), ..Draft::default() }.changed(held, now))
            .expect("product 4 was just made");
        assert_eq!((edited.stock, edited.version, edited.name_en.as_str()), (7, 2, "Fourth"));
        catalogue.delete(4, |_| true).expect("product 4 is there");
        assert_eq!(catalogue.delete(4, |_| true), Err(WriteError::Unknown));
        assert_eq!(catalogue.create(draft("Fifth"), now).expect("room").id, 5);
    }

    #[test]
    fn a_bad_write_is_refused_and_changes_nothing() {
        let catalogue = Catalogue::seeded(1);
        let now = SystemTime::UNIX_EPOCH;
        let mut no_price = draft("x");
        no_price.price_cents = None;
        let mut no_category = draft("x");
        no_category.category = Some("cars".into());
        for (draft, error) in [
            (no_price, WriteError::Incomplete),
            (no_category, WriteError::Category),
            (draft(""), WriteError::Name),
            (draft(&"x".repeat(NAME_BYTES_MAX + 1)), WriteError::Name),
        ] {
            assert_eq!(catalogue.create(draft, now), Err(error));
        }
        assert_eq!(catalogue.select(&ALL).total, 1);
    }

    #[test]
    fn a_full_catalogue_refuses_one_more() {
        let catalogue = Catalogue::seeded(PRODUCTS_MAX + 1);
        assert_eq!(catalogue.create(draft("x"), SystemTime::UNIX_EPOCH), Err(WriteError::Full));
    }
}
