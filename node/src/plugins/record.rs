//! What is remembered of a plugin, as it stands in `registry.json` and in the admin API's answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::VERSIONS_KEPT_MAX;

/// The whole of `registry.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegistryFile {
    /// The layout of this file, [`RegistryFile::FORMAT`].
    pub(super) format: u32,
    pub(super) plugins: BTreeMap<String, PluginRecord>,
}

impl RegistryFile {
    pub(super) const FORMAT: u32 = 1;

    pub(super) fn empty() -> RegistryFile {
        RegistryFile { format: RegistryFile::FORMAT, plugins: BTreeMap::new() }
    }
}

/// One plugin: its versions, oldest first, and which of them were and are active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginRecord {
    /// Kept versions, ascending, at most [`VERSIONS_KEPT_MAX`] beside those needed for a rollback.
    pub versions: Vec<VersionRecord>,
    /// The number that the next upload gets. Numbers are never given twice.
    pub next_version: u64,
    /// The active version.
    pub active: Option<u64>,
    /// Versions that were active before, oldest first: a rollback takes the last one.
    pub before: Vec<u64>,
}

/// One version of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionRecord {
    /// Its number, counted up from 1 for each plugin.
    pub version: u64,
    /// SHA-256 of the component in hex: its identity.
    pub digest: String,
    /// The name that the component gives itself.
    pub declared_name: String,
    /// The version that the component gives itself.
    pub declared_version: String,
    /// The hooks that it has.
    pub hooks: Vec<String>,
    /// What its rules read.
    pub inputs: DeclaredInputs,
    /// Size of the component.
    pub component_bytes: u64,
    /// When it was uploaded, seconds since 1970.
    pub uploaded_at: u64,
}

/// What a plugin declares that it reads; the host passes this and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeclaredInputs {
    /// Request field names.
    pub headers: Vec<String>,
    /// Cookie names.
    pub cookies: Vec<String>,
    /// Query parameters.
    pub query: DeclaredQuery,
    /// Whether the path is read.
    pub path: bool,
    /// What the invalidation rule reads; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalidation: Option<DeclaredReads>,
}

/// What an invalidation rule declares that it reads, besides method, scheme, authority, path, query and status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeclaredReads {
    /// Request field names.
    pub request_headers: Vec<String>,
    /// Response field names.
    pub response_headers: Vec<String>,
    /// JSON pointers into the request's content.
    pub request_values: Vec<String>,
    /// JSON pointers into the response's content.
    pub response_values: Vec<String>,
}

/// Which query parameters a plugin reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeclaredQuery {
    /// None.
    #[default]
    None,
    /// All of them.
    All,
    /// Those with these names.
    Named(Vec<String>),
}

impl Default for PluginRecord {
    fn default() -> Self {
        PluginRecord { versions: Vec::new(), next_version: 1, active: None, before: Vec::new() }
    }
}

impl PluginRecord {
    /// The version with this number.
    pub fn version(&self, version: u64) -> Option<&VersionRecord> {
        self.versions.iter().find(|record| record.version == version)
    }

    /// The version with this identity.
    pub(super) fn with_digest(&self, digest: &str) -> Option<&VersionRecord> {
        self.versions.iter().find(|record| record.digest == digest)
    }

    /// Makes `version` the active one and remembers the one before it.
    pub(super) fn activate(&mut self, version: u64) {
        if self.active == Some(version) {
            return;
        }
        // A version appears once in the way back: going back twice must not end at the same place.
        self.before.retain(|&earlier| earlier != version);
        if let Some(active) = self.active.replace(version) {
            self.before.retain(|&earlier| earlier != active);
            self.before.push(active);
        }
        let surplus = self.before.len().saturating_sub(VERSIONS_KEPT_MAX - 1);
        self.before.drain(..surplus);
        self.drop_surplus();
    }

    /// Makes the version before the active one active again. `None`: there was none, nothing changed.
    pub(super) fn roll_back(&mut self) -> Option<u64> {
        let version = self.before.pop()?;
        self.active = Some(version);
        Some(version)
    }

    /// Adds a version under the next number.
    pub(super) fn add(&mut self, mut record: VersionRecord) -> u64 {
        let version = self.next_version;
        self.next_version += 1;
        record.version = version;
        self.versions.push(record);
        self.drop_surplus();
        version
    }

    /// Keeps the newest versions, the active one and the one a rollback would take.
    fn drop_surplus(&mut self) {
        while self.versions.len() > VERSIONS_KEPT_MAX {
            let needed = [self.active, self.before.last().copied()];
            let newest = self.versions.last().map(|record| record.version);
            let surplus = self
                .versions
                .iter()
                .position(|record| !needed.contains(&Some(record.version)) && newest != Some(record.version));
            let Some(surplus) = surplus else { return };
            let gone = self.versions.remove(surplus).version;
            self.before.retain(|&earlier| earlier != gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version() -> VersionRecord {
        VersionRecord {
            version: 0,
            digest: String::new(),
            declared_name: "rule".to_owned(),
            declared_version: "1.0.0".to_owned(),
            hooks: vec!["cache-key".to_owned()],
            inputs: DeclaredInputs::default(),
            component_bytes: 1,
            uploaded_at: 0,
        }
    }

    /// Pressing rollback twice goes further back; it never brings back the version that was fled from.
    #[test]
    fn rollback_never_goes_forward() {
        let mut record = PluginRecord::default();
        for _ in 0..3 {
            let number = record.add(version());
            record.activate(number);
        }
        assert_eq!((record.active, record.roll_back()), (Some(3), Some(2)));
        assert_eq!(record.roll_back(), Some(1));
        assert_eq!((record.roll_back(), record.active), (None, Some(1)));
    }

    #[test]
    fn oldest_versions_go_but_not_those_in_use() {
        let mut record = PluginRecord::default();
        for _ in 0..2 {
            let number = record.add(version());
            record.activate(number);
        }
        for _ in 0..30 {
            record.add(version());
        }
        let kept: Vec<u64> = record.versions.iter().map(|kept| kept.version).collect();
        assert_eq!(kept, [1, 2, 25, 26, 27, 28, 29, 30, 31, 32]);
        assert_eq!(record.roll_back(), Some(1));
    }

    #[test]
    fn activating_the_active_version_changes_nothing() {
        let mut record = PluginRecord::default();
        record.add(version());
        record.activate(1);
        let before = record.clone();
        record.activate(1);
        assert_eq!(record, before);
    }
}
