//! Which database below `index/` is the index: each rebuild makes the next generation, a numbered folder.
//!
//! sled gives space back late and only as a by-product of writes. A rebuild copies what is alive into a new database; it is
//! what keeps the index within its budget.
//!
//! Always true:
//! - `current` names the one generation that counts, with a checksum, and is replaced whole. Any other folder is left over
//!   from a rebuild that was cut off, or from before the last one, and goes when the index is opened.
//! - A generation is flushed before `current` names it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Index, IndexError, SledIndex, Tuning};
use crate::dir::{StoreId, sync_dir};
use crate::faults::Step;

/// The name under which an index remembers whose it is.
const META_STORE: &str = "store";
pub(crate) const CURRENT_FILE: &str = "current";

/// An open database and its number.
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) index: SledIndex,
}

/// The folder of the generations.
#[derive(Debug, Clone)]
pub(crate) struct Generations {
    dir: PathBuf,
    store: StoreId,
    tuning: Tuning,
    /// The number of the first generation.
    first: u64,
}

fn broken(what: &str) -> IndexError {
    IndexError::Engine(what.to_owned())
}

fn numbered(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        if let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

fn line(number: u64) -> String {
    format!("brim-index {number} {:08x}\n", crc32c::crc32c(&number.to_le_bytes()))
}

/// None: there is no `current` yet.
fn read_current(dir: &Path) -> Result<Option<u64>, IndexError> {
    let text = match std::fs::read(dir.join(CURRENT_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = String::from_utf8_lossy(&text);
    let number = text.split(' ').nth(1).and_then(|number| number.parse().ok());
    let number = number.filter(|number| line(*number) == text);
    number.map(Some).ok_or_else(|| broken("the file that names the current generation is damaged"))
}

impl Generations {
    pub(crate) fn new(dir: PathBuf, store: StoreId, tuning: Tuning) -> Self {
        Self { dir, store, tuning, first: 1 }
    }

    /// The first generation that is made has this number.
    pub(crate) fn beginning_at(self, first: u64) -> Self {
        Self { first, ..self }
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:08}"))
    }

    fn open(&self, number: u64) -> Result<SledIndex, IndexError> {
        self.tuning.faults.at(Step::IndexOpen)?;
        SledIndex::open(&self.path_of(number), self.tuning.clone())
    }

    /// The generation that counts, for reading alone: nothing is made or removed but what sled does itself.
    pub(crate) fn look(&self) -> Result<Generation, IndexError> {
        let number = read_current(&self.dir)?.ok_or_else(|| broken("nothing names the current generation"))?;
        self.open_current(number)
    }

    fn open_current(&self, number: u64) -> Result<Generation, IndexError> {
        if !self.path_of(number).is_dir() {
            return Err(broken("the current generation is missing"));
        }
        let index = self.open(number)?;
        match index.meta(META_STORE)? {
            Some(id) if id == self.store.0 => Ok(Generation { number, index }),
            Some(_) | None => Err(IndexError::Foreign),
        }
    }

    /// Opens the generation that counts, or makes the first; leftovers are removed, unless `is_given_up` meanwhile: then
    /// the folder may be another tier's.
    pub(crate) fn open_or_make(&self, is_given_up: &dyn Fn() -> bool) -> Result<Generation, IndexError> {
        std::fs::create_dir_all(&self.dir)?;
        let found = numbered(&self.dir)?;
        let generation = match read_current(&self.dir)? {
            Some(number) => self.open_current(number)?,
            None => self.first(is_given_up)?,
        };
        for number in found {
            if number != generation.number && !is_given_up() {
                self.remove(number);
            }
        }
        Ok(generation)
    }

    /// The first generation. One that a process made and did not live to name is taken if it is empty.
    fn first(&self, is_given_up: &dyn Fn() -> bool) -> Result<Generation, IndexError> {
        let first = match numbered(&self.dir)?[..] {
            [] => self.first,
            [one] => one,
            _ => return Err(broken("nothing names the current generation")),
        };
        let index = self.open(first)?;
        let mut is_empty = true;
        index.walk(None, &mut |_, _| {
            is_empty = false;
            false
        })?;
        if !is_empty {
            return Err(broken("nothing names the current generation"));
        }
        index.put_meta(META_STORE, &self.store.0)?;
        index.flush()?;
        if is_given_up() {
            return Err(broken("left behind while it was made"));
        }
        self.name_current(first)?;
        Ok(Generation { number: first, index })
    }

    /// An empty generation that does not count yet.
    pub(crate) fn make(&self, number: u64) -> Result<Generation, IndexError> {
        self.remove(number);
        let index = self.open(number)?;
        index.put_meta(META_STORE, &self.store.0)?;
        Ok(Generation { number, index })
    }

    /// From here on this generation counts. It has been flushed.
    pub(crate) fn name_current(&self, number: u64) -> Result<(), IndexError> {
        self.tuning.faults.at(Step::IndexSwitch)?;
        let unfinished = self.dir.join("current.new");
        let mut file = File::create(&unfinished)?;
        file.write_all(line(number).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&unfinished, self.dir.join(CURRENT_FILE))?;
        sync_dir(&self.dir)?;
        Ok(())
    }

    /// Removes a generation's files; who has it open may go on.
    pub(crate) fn remove(&self, number: u64) {
        match std::fs::remove_dir_all(self.path_of(number)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(number, %error, "an old index could not be removed"),
        }
    }
}
