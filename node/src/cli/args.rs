//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{ADMIN_ADDRESS, LogFormat};

/// Brim, an edge cache node for APIs.
#[derive(Debug, Parser)]
#[command(name = "brim", version, about, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node
    Serve(ServeArgs),
    /// Check a configuration file
    Check(CheckArgs),
    /// Run a sample origin with a node before it, and a printed tour
    Demo(DemoArgs),
    /// Run the sample origin alone
    DemoOrigin(DemoOriginArgs),
    /// Purge stored responses on a running node
    Purge(PurgeArgs),
    /// Make, list and revoke tokens of a running node
    Token(TokenArgs),
    /// Make, build, upload and switch plugins
    Plugin(PluginArgs),
    /// Show what a running node would do with a request, and why
    Explain(ExplainArgs),
    /// Show the figures of a running node
    Status(StatusArgs),
    /// Show the origins of a running node, and take endpoints out of service
    Origin(OriginArgs),
    /// Look at a data directory that no node uses
    Store(StoreArgs),
    /// Compile the component on stdin to stdout, within limits (the node calls this)
    #[command(hide = true)]
    CompilePlugin,
}

/// `brim serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// How log lines look; overrides the file
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormatArg>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormatArg {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl From<LogFormatArg> for LogFormat {
    fn from(format: LogFormatArg) -> LogFormat {
        match format {
            LogFormatArg::Text => LogFormat::Text,
            LogFormatArg::Json => LogFormat::Json,
        }
    }
}

/// `brim check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `brim demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Where the node listens for HTTP
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,
    /// Where the node listens for HTTPS
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    pub https: SocketAddr,
    /// Where the admin API listens
    #[arg(long, value_name = "ADDR", default_value_t = ADMIN_ADDRESS)]
    pub admin: SocketAddr,
    /// Where the sample origin listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    pub origin: SocketAddr,
    /// The folder with the example plugins
    #[arg(long, value_name = "DIR", default_value = "plugins")]
    pub plugins: PathBuf,
    /// Where the node keeps its data; a temporary directory, removed at the end, unless given
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// `brim demo-origin`.
#[derive(Debug, Clone, Args)]
pub struct DemoOriginArgs {
    /// Where it listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,
    /// Wait before every answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 80)]
    pub delay_ms: u64,
    /// Wait before the sales report, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    pub report_delay_ms: u64,
    /// Products in the catalogue
    #[arg(long, value_name = "COUNT", default_value_t = 2400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub products: u32,
}

/// Which node, and how to speak with it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The node")]
pub struct ClientOptions {
    /// The node's admin API
    #[arg(long, value_name = "URL", default_value_t = format!("http://{ADMIN_ADDRESS}"), global = true)]
    pub admin: String,
    /// The admin token; else --token-file, else the environment variable BRIM_TOKEN
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file", global = true)]
    pub token: Option<String>,
    /// A file with the admin token; a node keeps its own in DATA_DIR/admin.token
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// Print JSON, one document a line
    #[arg(long, global = true)]
    pub json: bool,
}

/// `brim status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Which node.
    #[command(flatten)]
    pub client: ClientOptions,
}

/// `brim explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The URL as clients ask for it
    pub url: String,
    /// The method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    pub method: String,
    /// A field of the request; may be given several times. Host stands in for the URL's authority
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// The content, for a QUERY
    #[arg(short = 'd', long = "data", value_name = "TEXT")]
    pub content: Option<String>,
    /// Which node.
    #[command(flatten)]
    pub client: ClientOptions,
}

/// `Name: value`; the node checks both.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("it must look like `Name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// `brim purge`.
#[derive(Debug, Clone, Args)]
pub struct PurgeArgs {
    /// What to purge.
    #[command(subcommand)]
    pub command: PurgeCommand,
    /// Make stale instead of unusable: served while it is validated
    #[arg(long, global = true)]
    pub soft: bool,
    /// With --soft: refresh nothing ahead, validate what is asked for
    #[arg(long, requires = "soft", global = true)]
    pub on_demand: bool,
    /// Purge nothing; show what would be
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Wait until what was hit is counted and given back, at most 25 s
    #[arg(long, global = true)]
    pub wait: bool,
    /// What a dry run, or a refusal for the blast radius, has shown
    #[arg(long, value_name = "TOKEN", global = true)]
    pub confirm: Option<String>,
    /// Purge once, however often this is repeated with the same key
    #[arg(long, value_name = "KEY", global = true)]
    pub idempotency_key: Option<String>,
    /// Which node.
    #[command(flatten)]
    pub client: ClientOptions,
}

/// What to purge.
#[derive(Debug, Clone, Subcommand)]
pub enum PurgeCommand {
    /// URLs, each with all its variants, under http and https
    Url {
        /// Absolute URLs
        #[arg(required = true, value_name = "URL")]
        urls: Vec<String>,
        /// Only the variant that a request with these fields, and no others, selects; may be given several times
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
        headers: Vec<(String, String)>,
    },
    /// Everything whose URL begins so, under http and https
    Prefix {
        /// Absolute URLs without a query
        #[arg(required = true, value_name = "URL-PREFIX")]
        prefixes: Vec<String>,
    },
    /// Everything that carries one of these surrogate keys
    Key {
        /// Surrogate keys
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
        /// Only of this site
        #[arg(long, value_name = "SITE")]
        site: Option<String>,
    },
    /// Everything of sites
    Site {
        /// Names of configured sites
        #[arg(required = true, value_name = "SITE")]
        sites: Vec<String>,
    },
    /// Everything
    All,
    /// Everything of which all of this holds
    Match(MatchArgs),
    /// List the last purges, the newest first
    List {
        /// How many
        #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// Only positions below this one
        #[arg(long, value_name = "POSITION")]
        before: Option<u64>,
    },
    /// Show the receipt of a purge
    Show {
        /// The id of the receipt
        #[arg(value_name = "RECEIPT")]
        id: String,
    },
}

/// `brim purge match`.
#[derive(Debug, Clone, Default, Args)]
#[group(required = true, multiple = true)]
pub struct MatchArgs {
    /// Of this site
    #[arg(long, value_name = "SITE")]
    pub site: Option<String>,
    /// The host; * stands for any letters
    #[arg(long, value_name = "PATTERN")]
    pub host: Option<String>,
    /// The path; * stands for any letters, / among them
    #[arg(long, value_name = "PATTERN")]
    pub path: Option<String>,
    /// The status: 404, 4xx or 500-599; may be given several times
    #[arg(long = "status", value_name = "STATUS")]
    pub statuses: Vec<String>,
    /// Stored longer ago than this, such as 10m
    #[arg(long, value_name = "AGE")]
    pub older_than: Option<String>,
    /// Stored within this time
    #[arg(long, value_name = "AGE")]
    pub younger_than: Option<String>,
    /// The media type; * stands for any letters
    #[arg(long, value_name = "PATTERN")]
    pub content_type: Option<String>,
    /// The plugin version that made the key: NAME@VERSION, or its digest in hex
    #[arg(long, value_name = "PLUGIN")]
    pub plugin: Option<String>,
}

/// `brim token`.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// What to do
    #[command(subcommand)]
    pub command: TokenCommand,
    #[allow(missing_docs, reason = "clap would print it")]
    #[command(flatten)]
    pub client: ClientOptions,
}

/// What `brim token` does.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Make a token, and show its secret this once
    New {
        /// What to call it: letters, digits, -, _ and .
        name: String,
        /// What it may do; may be given several times
        #[arg(long = "scope", value_name = "SCOPE", value_enum, required = true)]
        scopes: Vec<ScopeArg>,
        /// A site that it may purge; may be given several times, all unless given
        #[arg(long = "site", value_name = "SITE")]
        sites: Vec<String>,
        /// It may purge only surrogate keys that begin so; may be given several times
        #[arg(long = "key-prefix", value_name = "PREFIX")]
        key_prefixes: Vec<String>,
        /// Purges a minute, 0 for any number; as the node's configuration says unless given
        #[arg(long, value_name = "COUNT")]
        purges_per_minute: Option<u32>,
        /// How long it is good, such as 30d; until it is revoked unless given
        #[arg(long, value_name = "TIME")]
        expires_in: Option<String>,
    },
    /// List the tokens; their secrets are known to nobody but their holders
    List,
    /// Revoke a token at once
    Revoke {
        /// The id of the token, as `brim token list` shows it
        id: String,
    },
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScopeArg {
    /// Look: status, origins, plugins, receipts, explanations
    Read,
    /// Purge, and look at the receipts of its own purges
    Purge,
    /// Upload and switch plugins
    Plugins,
    /// Everything
    Admin,
}

/// `brim origin`.
#[derive(Debug, Clone, Args)]
pub struct OriginArgs {
    /// What to do
    #[command(subcommand)]
    pub command: OriginCommand,
}

/// What `brim origin` does.
#[derive(Debug, Clone, Subcommand)]
pub enum OriginCommand {
    /// List the endpoints: state, connections, requests, times
    List {
        #[allow(missing_docs, reason = "clap would print it")]
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Take an endpoint out of service: it finishes what it has and gets nothing new
    Drain(DrainArgs),
    /// Put a drained endpoint back into service
    Restore(DrainArgs),
}

/// Which endpoint.
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    /// The name of the origin
    #[arg(value_name = "ORIGIN")]
    pub origin: String,
    /// The URL of the endpoint, as `brim origin list` shows it
    #[arg(value_name = "URL")]
    pub endpoint: String,
    #[allow(missing_docs, reason = "clap would print it")]
    #[command(flatten)]
    pub client: ClientOptions,
}

/// `brim store`.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: StoreCommand,
    /// Print JSON, one document a line
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do with a data directory.
#[derive(Debug, Clone, Subcommand)]
pub enum StoreCommand {
    /// Check every checksum: 0 if all is sound, 1 if anything is damaged
    Verify(DataDir),
    /// Count what is stored
    Stats(DataDir),
    /// List what is stored: method, URL, status, bytes, when
    ExportKeys(DataDir),
}

/// Which data directory.
#[derive(Debug, Clone, Args)]
pub struct DataDir {
    /// The data directory; no node may be using it
    #[arg(value_name = "DATA_DIR", required_unless_present = "config", conflicts_with = "config")]
    pub dir: Option<PathBuf>,
    /// Take the data directory from this configuration file
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `brim plugin`.
#[derive(Debug, Clone, Args)]
pub struct PluginArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PluginCommand,
}

/// What to do with a plugin.
#[derive(Debug, Clone, Subcommand)]
pub enum PluginCommand {
    /// Make a folder with a plugin that builds and passes its tests as it is
    New(NewArgs),
    /// Build a plugin and print the path of its component
    Build {
        /// The plugin's folder
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Upload a plugin to a node, as its next version
    Push(PushArgs),
    /// List a node's plugins, or the versions of one
    List {
        /// The plugin
        name: Option<String>,
        /// Which node.
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Make a version the one in use
    Activate {
        /// The plugin
        name: String,
        /// The version; the newest unless given
        version: Option<u64>,
        /// Which node.
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Bring back the version that was in use before
    Rollback {
        /// The plugin
        name: String,
        /// Which node.
        #[command(flatten)]
        client: ClientOptions,
    },
}

/// `brim plugin new`.
#[derive(Debug, Clone, Args)]
pub struct NewArgs {
    /// The plugin's name, and that of its folder
    pub name: String,
    /// What the plugin decides
    #[arg(long, value_enum, default_value_t = HookArg::CacheKey)]
    pub hook: HookArg,
    /// Use this SDK instead of writing a copy beside the plugin
    #[arg(long, value_name = "DIR")]
    pub sdk_path: Option<PathBuf>,
}

/// What a plugin decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HookArg {
    /// What a cache key consists of
    CacheKey,
    /// By what responses are purged, and what writes purge
    Invalidation,
}

/// `brim plugin push`.
#[derive(Debug, Clone, Args)]
pub struct PushArgs {
    /// A plugin's folder, which is built first, or a component
    #[arg(value_name = "DIR-or-FILE")]
    pub source: PathBuf,
    /// The plugin's name on the node; that of the component's file unless given
    #[arg(long)]
    pub name: Option<String>,
    /// Make it the version in use
    #[arg(long)]
    pub activate: bool,
    /// Which node.
    #[command(flatten)]
    pub client: ClientOptions,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn options_stand_before_or_after_the_words() {
        for line in [
            "brim purge url http://a/ --soft --dry-run --admin http://h:1 --token t --json",
            "brim purge --soft --dry-run --admin http://h:1 --token t --json url http://a/",
        ] {
            let Command::Purge(purge) = parse(line).expect(line).command else { panic!("{line}") };
            assert!(purge.soft && purge.dry_run && purge.client.json, "{line}");
            assert_eq!(purge.client.admin, "http://h:1", "{line}");
            assert_eq!(purge.client.token.as_deref(), Some("t"), "{line}");
        }
    }

    #[test]
    fn a_match_needs_one_part_and_takes_all() {
        let line = "brim purge match --site s --host *.a --path /b/* --status 404 --status 5xx --older-than 1m --younger-than 1h \
                    --content-type text/* --plugin p@1 --wait --confirm c --idempotency-key k";
        let Command::Purge(purge) = parse(line).expect(line).command else { panic!("{line}") };
        assert!(purge.wait && purge.confirm.as_deref() == Some("c") && purge.idempotency_key.as_deref() == Some("k"));
        let PurgeCommand::Match(found) = purge.command else { panic!("{line}") };
        assert_eq!((found.host.as_deref(), found.statuses), (Some("*.a"), vec!["404".to_owned(), "5xx".to_owned()]));
        for part in ["--site s", "--status 404", "--plugin p@1"] {
            assert!(parse(&format!("brim purge match {part}")).is_ok(), "{part}");
        }
    }

    #[test]
    fn a_request_to_be_explained_is_written_as_for_curl() {
        let Command::Explain(asked) =
            parse("brim explain http://a/ -X HEAD -H A:1 --header B:2:3 --json").expect("a request").command
        else {
            panic!("explain")
        };
        assert_eq!((asked.method.as_str(), asked.client.json), ("HEAD", true));
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(asked.headers, [header("A", "1"), header("B", "2:3")]);
    }

    #[test]
    fn the_admin_api_is_expected_where_a_node_puts_it() {
        let Command::Status(status) = parse("brim status").expect("status").command else { panic!("status") };
        assert_eq!(status.client.admin, "http://127.0.0.1:9900");
    }

    #[test]
    fn a_store_is_named_by_its_directory() {
        for (line, dir, is_json) in [
            ("brim store verify data", Some("data"), false),
            ("brim store stats --json data", Some("data"), true),
            ("brim store --json export-keys -c brim.toml", None, true),
        ] {
            let Command::Store(store) = parse(line).expect(line).command else { panic!("{line}") };
            let (StoreCommand::Verify(place) | StoreCommand::Stats(place) | StoreCommand::ExportKeys(place)) =
                store.command;
            assert_eq!((place.dir, store.json), (dir.map(PathBuf::from), is_json), "{line}");
            assert_eq!(place.config.is_some(), dir.is_none(), "{line}");
        }
    }

    #[test]
    fn what_is_missing_or_unknown_is_refused() {
        for line in [
            "brim",
            "brim serve",
            "brim warm",
            "brim explain",
            "brim explain http://a/ -H novalue",
            "brim explain http://a/ http://b/",
            "brim plugin test",
            "brim purge",
            "brim purge url",
            "brim purge tag x",
            "brim purge url http://a/ -H novalue",
            "brim purge match",
            "brim purge match --soft",
            "brim purge list --limit 501",
            "brim purge show",
            "brim token",
            "brim token new x",
            "brim token new x --scope root",
            "brim token revoke",
            "brim plugin new",
            "brim plugin new x --hook pagination",
            "brim plugin activate x newest",
            "brim status --token a --token-file b",
            "brim demo-origin --listen nowhere",
            "brim store",
            "brim store repair data",
            "brim store verify",
            "brim store stats one two",
            "brim store stats one -c brim.toml",
            "brim store export-keys data --token t",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
