//! What the demo prints: commands to copy, with what to look at.

use std::net::SocketAddr;
use std::path::Path;

use crate::node::Node;

/// One thing to try.
struct Step {
    title: &'static str,
    look_at: &'static str,
    commands: Vec<String>,
}

/// Prints the tour to stdout.
#[allow(clippy::print_stdout, reason = "the tour is what the command is for")]
pub(super) fn print(node: &Node, origin: SocketAddr, token_file: &Path, plugins: &[&str]) {
    let port = |addresses: &[SocketAddr]| addresses.first().map_or(0, SocketAddr::port);
    let (http, https) = (port(node.http()), port(node.https()));
    println!();
    println!("Brim is running: a node before a sample API that takes 80 ms for an answer.");
    println!();
    println!("  node     https://localhost:{https}   http://localhost:{http}");
    println!("  origin   http://{origin}   (ask it directly to compare)");
    println!("  admin    http://{}   token in {}", node.admin(), token_file.display());
    println!("  plugins  {}", if plugins.is_empty() { "none".to_owned() } else { plugins.join(", ") });
    println!();
    println!("In another terminal (the certificate is self-signed, hence -k):");
    for (number, step) in steps(https, node.admin(), token_file, plugins).into_iter().enumerate() {
        println!();
        println!("{}. {}", number + 1, step.title);
        for command in step.commands {
            println!("     {command}");
        }
        println!("   {}", step.look_at);
    }
    println!();
    println!("Ctrl-C stops everything.");
}

fn steps(https: u16, admin: SocketAddr, token_file: &Path, plugins: &[&str]) -> Vec<Step> {
    let curl = |rest: &str| format!("curl -ksi {rest}").replace("BASE", &format!("https://localhost:{https}"));
    let brim = program();
    let brim = |rest: &str| format!("{brim} {rest}").replace("BASE", &format!("https://localhost:{https}"));
    let mut steps = vec![
        Step {
            title: "A miss, then a hit",
            commands: vec![curl("BASE/products/17"), curl("BASE/products/17")],
            look_at: "Look at cache-status (fwd=uri-miss and stored, then hit), age, and x-origin-request: the origin was asked once.",
        },
        Step {
            title: "Another language is another variant of the same key",
            commands: vec![
                curl("-H 'Accept-Language: de' BASE/products/17"),
                curl("-H 'Accept-Language: de' BASE/products/17"),
            ],
            look_at: "fwd=vary-miss, then hit; content-language says which.",
        },
        Step {
            title: "A write makes what it changes unusable (RFC 9111, section 4.4)",
            commands: vec![
                curl("-X PATCH -H 'Content-Type: application/json' -d '{\"price_cents\": 950}' BASE/products/17"),
                curl("BASE/products/17"),
            ],
            look_at: "The read after it says fwd=uri-miss; detail=purged, and has the new price.",
        },
        Step {
            title: "It knows what a page of a list is: a write to one product purges the pages that show it",
            commands: vec![
                curl(
                    "'BASE/products?page=1' 'BASE/products?page=2' -o /dev/null -o /dev/null -D - | grep -i cache-status",
                ),
                curl(
                    "-X PATCH -H 'Content-Type: application/json' -d '{\"price_cents\": 900}' BASE/products/17 -o /dev/null",
                ),
                curl(
                    "'BASE/products?page=1' 'BASE/products?page=2' -o /dev/null -o /dev/null -D - | grep -i cache-status",
                ),
            ],
            look_at: "Page 1 shows product 17 and is purged; page 2 does not, and stays a hit.",
        },
        Step {
            title: "Ten clients, one slow report, one request to the origin",
            commands: vec![format!(
                "for i in 1 2 3 4 5 6 7 8 9 10; do curl -ksi https://localhost:{https}/reports/sales | grep -i cache-status & done; wait"
            )],
            look_at: "All answers come after about 2 s; those that waited say collapsed.",
        },
        Step {
            title: "Purges: hard, soft, and what would go",
            commands: vec![
                format!("export BRIM_TOKEN=$(cat {})", token_file.display()),
                brim(&format!("purge url BASE/products/17 --admin http://{admin}")),
                brim(&format!("purge site demo --soft --admin http://{admin}")),
                brim(&format!("purge key products --dry-run --admin http://{admin}")),
            ],
            look_at: "The receipt has a position in the durable log. After a soft purge: served once more with detail=soft-purged while it is validated, then fresh.",
        },
    ];
    steps.push(Step {
        title: "Why was that so? The decision, line by line, without asking the origin",
        commands: vec![
            brim(&format!("explain BASE/products/17 --admin http://{admin}")),
            brim(&format!("explain BASE/products/17 -H 'Cache-Control: max-age=1' --admin http://{admin}")),
        ],
        look_at: "Key and where each part comes from, what is stored and why not, age and lifetime figure by figure.",
    });
    if plugins.contains(&"tenant-key") {
        steps.extend(plugin_steps(&curl, &brim, admin));
    }
    steps.push(Step {
        title: "What the node says of itself",
        commands: vec![
            brim(&format!("status --admin http://{admin}")),
            brim(&format!("origin list --admin http://{admin}")),
            format!("curl -s http://{admin}/metrics | grep '^brim_requests'"),
        ],
        look_at: "",
    });
    steps
}

/// What the key rule `tenant-key` does, and how it is swapped.
fn plugin_steps(curl: &impl Fn(&str) -> String, brim: &impl Fn(&str) -> String, admin: SocketAddr) -> [Step; 2] {
    [
        Step {
            title: "A plugin shapes the key: the tenant counts, tracking parameters and order do not",
            commands: vec![
                curl("-H 'X-Tenant: acme' 'BASE/catalogue?page=1&limit=5&utm_source=mail'"),
                curl("-H 'X-Tenant: acme' 'BASE/catalogue?limit=5&page=1'"),
                curl("-H 'X-Tenant: globex' 'BASE/catalogue?limit=5&page=1'"),
            ],
            look_at: "fwd=uri-miss, then hit for the same tenant; another tenant has prices of its own and misses.",
        },
        Step {
            title: "Swap a plugin, and take it back",
            commands: vec![
                brim("plugin new my-key"),
                brim(&format!("plugin push my-key --name tenant-key --activate --admin http://{admin}")),
                brim(&format!("plugin list tenant-key --admin http://{admin}")),
                brim(&format!("plugin rollback tenant-key --admin http://{admin}")),
            ],
            look_at: "Repeat the step before under the new rule: it knows no tenants, so globex is given acme's prices. That is what a rollback is for.",
        },
    ]
}

/// How to call this program from the current directory.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else { return "brim".into() };
    let relative = std::env::current_dir().ok().and_then(|dir| path.strip_prefix(dir).ok().map(Path::to_path_buf));
    relative.unwrap_or(path).display().to_string()
}
