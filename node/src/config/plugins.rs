//! `[plugins]`: what a plugin may use, and `[plugins.config.<plugin>]`: what it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reader::Section;
use super::{limits, site};

/// `[plugins]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginsSection {
    /// One call of a cache-key rule.
    pub key_deadline: Duration,
    /// One call of an invalidation rule.
    pub invalidation_deadline: Duration,
    /// Linear memory of one instance.
    pub memory_max: u64,
    /// Instances alive at one time, over all plugins.
    pub instances_max: u32,
    /// Bytes of an uploaded component.
    pub component_bytes_max: u64,
    /// `[plugins.config.<plugin>]`: granted to the plugin of that name, and to no other.
    pub config: BTreeMap<String, BTreeMap<String, String>>,
}

pub(super) fn read(section: Section<'_>) -> PluginsSection {
    let config = PluginsSection {
        key_deadline: section.duration("key_deadline", &limits::KEY_DEADLINE),
        invalidation_deadline: section.duration("invalidation_deadline", &limits::INVALIDATION_DEADLINE),
        memory_max: section.bytes("memory_max", &limits::PLUGIN_MEMORY_MAX),
        instances_max: section.count("instances_max", &limits::INSTANCES_MAX),
        component_bytes_max: section.bytes("component_bytes_max", &limits::COMPONENT_BYTES_MAX),
        config: tables(&section.section("config")),
    };
    section.finish();
    config
}

fn tables(section: &Section<'_>) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut tables = BTreeMap::new();
    for (name, value) in section.entries() {
        if let Err(message) = site::check_name(name) {
            value.fail::<()>(message);
        }
        if let Some(table) = value.section() {
            tables.insert(name.to_owned(), strings(&table, &value));
        }
    }
    tables
}

fn strings(table: &Section<'_>, whole: &super::reader::Value<'_>) -> BTreeMap<String, String> {
    let entries = table.entries();
    if entries.len() > limits::PLUGIN_CONFIG_ENTRIES_MAX {
        whole.fail::<()>(format!("has {} entries, more than {}", entries.len(), limits::PLUGIN_CONFIG_ENTRIES_MAX));
    }
    let mut strings = BTreeMap::new();
    for (key, value) in entries {
        let Some(text) = value.text() else { continue };
        if text.len() > limits::PLUGIN_CONFIG_VALUE_BYTES_MAX {
            value.fail::<()>(format!("has {} bytes, more than {}", text.len(), limits::PLUGIN_CONFIG_VALUE_BYTES_MAX));
        }
        strings.insert(key.to_owned(), text.to_owned());
    }
    strings
}
