//! The plugins of the repository as components, built once for all tests.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use parking_lot::Mutex;

static BUILDING: Mutex<()> = Mutex::new(());
static TENANT_KEY: OnceLock<PathBuf> = OnceLock::new();
static DEVICE_KEY: OnceLock<PathBuf> = OnceLock::new();
static REST_TAGS: OnceLock<PathBuf> = OnceLock::new();
static WEBHOOK_PURGE: OnceLock<PathBuf> = OnceLock::new();
static HOSTILE: OnceLock<PathBuf> = OnceLock::new();

/// `plugins/tenant-key`
#[must_use]
pub fn tenant_key() -> &'static Path {
    built(&TENANT_KEY, "tenant-key")
}

/// `plugins/device-key`
#[must_use]
pub fn device_key() -> &'static Path {
    built(&DEVICE_KEY, "device-key")
}

/// `plugins/rest-tags`
#[must_use]
pub fn rest_tags() -> &'static Path {
    built(&REST_TAGS, "rest-tags")
}

/// `plugins/webhook-purge`
#[must_use]
pub fn webhook_purge() -> &'static Path {
    built(&WEBHOOK_PURGE, "webhook-purge")
}

/// `plugins/fixtures/hostile`: misbehaves as the path says.
#[must_use]
pub fn hostile() -> &'static Path {
    built(&HOSTILE, "fixtures/hostile")
}

fn built(cell: &'static OnceLock<PathBuf>, name: &str) -> &'static Path {
    cell.get_or_init(|| {
        // One cargo at a time: two would only wait for one another's lock, and say so into the test's output.
        let _one_at_a_time = BUILDING.lock();
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins").join(name);
        brim_node::plugin_kit::build(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
    })
}
