//! `brim origin`.

use super::args::{ClientOptions, DrainArgs, OriginArgs, OriginCommand};
use super::client::Client;
use super::error::CliError;
use super::print;
use crate::admin::{DrainRequest, EndpointStatus, OriginStatus, OriginsAnswer};

pub(super) fn run(args: &OriginArgs) -> Result<(), CliError> {
    match &args.command {
        OriginCommand::List { client } => list(client),
        OriginCommand::Drain(args) => drain(args, true),
        OriginCommand::Restore(args) => drain(args, false),
    }
}

fn list(options: &ClientOptions) -> Result<(), CliError> {
    let answer: OriginsAnswer = Client::new(options)?.get("/v1/origins")?;
    if options.json {
        return print::json(&answer);
    }
    answer.origins.iter().flat_map(lines).for_each(print::line);
    Ok(())
}

fn drain(args: &DrainArgs, drain: bool) -> Result<(), CliError> {
    let request = DrainRequest { endpoint: args.endpoint.clone(), drain };
    let path = format!("/v1/origins/{}/drain", args.origin);
    let origin: OriginStatus = Client::new(&args.client)?.post(&path, &request)?;
    if args.client.json {
        return print::json(&origin);
    }
    lines(&origin).into_iter().for_each(print::line);
    Ok(())
}

fn lines(origin: &OriginStatus) -> Vec<String> {
    let mut lines = vec![origin.name.clone()];
    lines.extend(origin.endpoints.iter().map(|endpoint| format!("  {}", line(endpoint))));
    lines.extend(origin.discovery_failures.iter().map(|failure| format!("  NOT FOUND: {failure}")));
    lines
}

fn line(endpoint: &EndpointStatus) -> String {
    let mut facts = vec![match &endpoint.reason {
        Some(reason) => format!("{} ({reason})", endpoint.state.to_uppercase()),
        None => endpoint.state.clone(),
    }];
    facts.extend(endpoint.resolve_failure.clone());
    if endpoint.priority > 0 {
        facts.push(format!("priority {}", endpoint.priority));
    }
    facts.extend(endpoint.region.clone());
    facts.push(format!("weight {}", endpoint.weight));
    facts.push(format!("{} ({} idle)", print::count(endpoint.connections, "connection"), endpoint.connections_idle));
    facts.push(format!("{} under way", endpoint.in_flight));
    if endpoint.waiting > 0 {
        facts.push(format!("{} waiting", endpoint.waiting));
    }
    facts.push(format!(
        "{}, {}",
        print::count(endpoint.requests, "request"),
        print::count(endpoint.failures, "failure")
    ));
    facts.extend(endpoint.latency_ms.map(|latency| format!("answers in {latency:.1} ms")));
    format!("{}: {}", endpoint.url, facts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_is_out_is_said_loudly() {
        let endpoint = EndpointStatus {
            url: "http://a:80".to_owned(),
            state: "ejected".to_owned(),
            reason: Some("5 requests in a row failed".to_owned()),
            weight: 1,
            priority: 1,
            region: Some("eu".to_owned()),
            connections: 2,
            connections_idle: 1,
            waiting: 3,
            latency_ms: Some(1.25),
            ..EndpointStatus::default()
        };
        assert_eq!(
            line(&endpoint),
            "http://a:80: EJECTED (5 requests in a row failed), priority 1, eu, weight 1, 2 connections (1 idle), 0 under way, \
             3 waiting, 0 requests, 0 failures, answers in 1.2 ms"
        );
        let fine =
            EndpointStatus { url: "http://b:80".to_owned(), state: "healthy".to_owned(), ..EndpointStatus::default() };
        assert!(line(&fine).starts_with("http://b:80: healthy, weight 0, 0 connections"), "{}", line(&fine));
    }
}
