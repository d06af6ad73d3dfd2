//! Kubernetes' part: both daemons as a kubelet's runtime, with the same network and the same pods.
//!
//! Each daemon is in a network namespace of its own, where its bridge and its packet filter's rules go with it. Our
//! daemon is there twice, since its plugins' directory is configured: with the plugins that it has built in, and with
//! the standard ones. Figures are wall time from request to answer, over one lasting connection.

mod hundred;
mod kubelet;
mod node;
mod pods;
mod probes;

use std::path::Path;
use std::rc::Rc;

use testkit::need;

use super::table::Table;
use node::Node;

/// Where Debian puts the standard plugins.
const STANDARD: &str = "/usr/lib/cni";

/// Runs every case.
pub fn run(turns: usize, programs: &Path) -> anyhow::Result<Table> {
    for need in [need::program("nsenter"), need::program("unshare"), need::program("iptables")] {
        need.map_err(anyhow::Error::msg)?;
    }
    anyhow::ensure!(Path::new(STANDARD).join("bridge").is_file(), "containernetworking-plugins is missing");
    let runtime = Rc::new(tokio::runtime::Builder::new_current_thread().enable_all().build()?);
    let mut table = Table::default();
    let (own, theirs) = (Node::ours(&runtime, programs)?, Node::theirs(&runtime, programs)?);
    {
        let standard = Node::ours_with_standard_plugins(&runtime, programs)?;
        pods::one(&mut table, "built-in plugins", (&own, &theirs), turns, 5.0);
        pods::one(&mut table, "standard plugins", (&standard, &theirs), turns, 3.0);
    }
    pods::fifty(&mut table, (&own, &theirs), turns.div_ceil(4));
    probes::idle(&mut table, (&own, &theirs));
    probes::steady(&mut table, (&own, &theirs));
    probes::list(&mut table, (&own, &theirs));
    hundred::run(&mut table, own, theirs, turns.div_ceil(4));
    Ok(table)
}
