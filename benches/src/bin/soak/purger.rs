//! Purges of every kind, at a steady pace.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin;
use crate::keys::Named;
use crate::reader::{Choice, World};
use crate::tally::Fault;

/// One purge in so many is soft: nothing is raised, so nothing is stale.
const SOFT_ONE_IN: u32 = 12;
/// Keys whose content changes without a purge, for each purge.
const CHANGES: u32 = 4;

/// Purges until the world stops.
pub(crate) async fn purge(world: Arc<World>, mut choice: Choice, per_second: u32) {
    let mut pace = interval(Duration::from_secs(1) / per_second.max(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !world.is_stopped() {
        pace.tick().await;
        for _ in 0..CHANGES {
            world.versions.change(choice.key());
        }
        let Some(life) = world.door.life() else { continue };
        let popular = choice.key();
        let named = Named::any(choice.random(), popular);
        let mut content = named.json();
        let raised = if choice.random().random_ratio(1, SOFT_ONE_IN) {
            content["soft"] = json!(true);
            None
        } else {
            Some(world.versions.raise(&world.keys, named))
        };
        match admin::purge(&world.door, &content).await {
            Ok(()) => {
                if let Some(raised) = raised {
                    world.versions.acknowledge(raised);
                }
                world.tally.purged();
            }
            // Whether it holds is not known, and nothing is expected of it.
            Err(_) if world.door.is_over(life) => world.tally.cut_by_kill(),
            Err(error) => world.tally.fault(Fault::PurgeRefused, format!("{error:#}")),
        }
    }
}
