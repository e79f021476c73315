//! Loading named tensors into a model: all of what the policy accepts, or nothing.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn::VarStore};

use super::LoadPolicy;
use crate::{Error, Result};

/// What became of each name. Model names are sorted; file names are in the file's order and as the file spells them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Variables of the model that take the file's values.
    pub loaded: Vec<String>,
    /// Variables of the model that the file lacks.
    pub missing: Vec<String>,
    /// Tensors of the file that the model lacks.
    pub unexpected: Vec<String>,
    /// Variables whose shape, or whether they are real numbers, differs between the two.
    pub mismatched: Vec<Mismatch>,
    /// Left out on purpose: the model's variables under a dropped prefix, the file's tensors that belong to those or
    /// lie outside the selected prefix, and batch-norm counters that the model does not keep.
    pub ignored: Vec<String>,
}

/// A variable that the file holds in another form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// The model's name.
    pub name: String,
    /// The model's kind and shape.
    pub expected: String,
    /// The file's kind and shape.
    pub found: String,
}

/// Copies named tensors into the variables of a model.
///
/// Floating kinds convert into one another (a half-precision file into a single-precision model); integers and truth
/// values must agree in kind. Nothing is copied unless the policy accepts every difference, so a refusal leaves the
/// model as it was. Two tensors of the file that translate to one name are refused under any policy, and so is a file
/// of which nothing fits.
///
/// # Errors
/// [`Error::Tensor`] naming the first refused mismatch or a name that two tensors claim; [`Error::Names`] listing the
/// refused missing and unexpected names; [`Error::Setting`] for a policy that is not valid.
pub fn load_state(variables: &VarStore, state: &IndexMap<String, Tensor>, policy: &LoadPolicy) -> Result<LoadReport> {
    let Comparison { report, copies } = compare(variables, state, policy)?;
    refuse(&report, policy)?;
    tch::no_grad(|| copies.into_iter().try_for_each(|(mut variable, source)| variable.f_copy_(source)))?;
    Ok(report)
}

/// What [`load_state`] would report, with every difference listed and none refused. Copies nothing.
///
/// # Errors
/// [`Error::Tensor`] for a name that two tensors claim; [`Error::Setting`] for a policy that is not valid.
pub fn compare_state(
    variables: &VarStore,
    state: &IndexMap<String, Tensor>,
    policy: &LoadPolicy,
) -> Result<LoadReport> {
    Ok(compare(variables, state, policy)?.report)
}

struct Comparison<'a> {
    report: LoadReport,
    /// Each loaded variable with the tensor whose values it takes.
    copies: Vec<(Tensor, &'a Tensor)>,
}

fn compare<'a>(
    variables: &VarStore,
    state: &'a IndexMap<String, Tensor>,
    policy: &LoadPolicy,
) -> Result<Comparison<'a>> {
    policy.validate()?;
    let variables = variables.variables();
    let mut report = LoadReport::default();
    let sources = translate(&variables, state, policy, &mut report)?;

    let mut copies = Vec::with_capacity(variables.len());
    let mut names: Vec<_> = variables.into_iter().collect();
    names.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, variable) in names {
        if policy.drops(&name) {
            report.ignored.push(name);
            continue;
        }
        match sources.get(&name) {
            None => report.missing.push(name),
            Some(&(_, source)) if fits(&variable, source)? => {
                report.loaded.push(name);
                copies.push((variable, source));
            }
            Some(&(_, source)) => {
                let (expected, found) = (describe(&variable)?, describe(source)?);
                report.mismatched.push(Mismatch { name, expected, found });
            }
        }
    }
    Ok(Comparison { report, copies })
}

/// The file's tensors by the model's names, each with the file's own name; what has no place goes into the report.
fn translate<'a>(
    variables: &HashMap<String, Tensor>,
    state: &'a IndexMap<String, Tensor>,
    policy: &LoadPolicy,
    report: &mut LoadReport,
) -> Result<HashMap<String, (&'a str, &'a Tensor)>> {
    let mut sources: HashMap<String, (&str, &Tensor)> = HashMap::with_capacity(state.len());
    for (theirs, tensor) in state {
        let ours = match policy.translate(theirs) {
            _ if policy.select.is_none() && variables.contains_key(theirs) => theirs.clone(),
            Some(translated) => translated,
            None => {
                report.ignored.push(theirs.clone());
                continue;
            }
        };
        if policy.drops(&ours) || (is_counter(&ours) && !variables.contains_key(&ours)) {
            report.ignored.push(theirs.clone());
        } else if !variables.contains_key(&ours) {
            report.unexpected.push(theirs.clone());
        } else if let Some((other, _)) = sources.insert(ours.clone(), (theirs, tensor)) {
            return Err(Error::tensor(ours, "one tensor of that name", format!("both `{other}` and `{theirs}`")));
        }
    }
    Ok(sources)
}

fn refuse(report: &LoadReport, policy: &LoadPolicy) -> Result<()> {
    let nothing_fits = report.loaded.is_empty() && !(report.missing.is_empty() && report.mismatched.is_empty());
    let refused = |mismatch: &&Mismatch| nothing_fits || !policy.mismatched.accepts(&mismatch.name);
    let mismatched: Vec<_> = report.mismatched.iter().filter(refused).collect();
    if let Some((first, others)) = mismatched.split_first() {
        let found = match others.len() {
            0 => first.found.clone(),
            more => format!("{} (and {more} more that differ)", first.found),
        };
        return Err(Error::tensor(&first.name, &first.expected, found));
    }
    let missing: Vec<_> =
        report.missing.iter().filter(|name| nothing_fits || !policy.missing.accepts(name)).cloned().collect();
    let unexpected: Vec<_> = report
        .unexpected
        .iter()
        .filter(|name| {
            let accepted = policy.unexpected.accepts(name)
                || policy.translate(name).is_some_and(|translated| policy.unexpected.accepts(&translated));
            nothing_fits || !accepted
        })
        .cloned()
        .collect();
    if missing.is_empty() && unexpected.is_empty() && !nothing_fits {
        return Ok(());
    }
    Err(Error::Names { missing, unexpected })
}

/// PyTorch's batch norms count their batches; tch's do not.
fn is_counter(name: &str) -> bool {
    name == "num_batches_tracked" || name.ends_with(".num_batches_tracked")
}

fn fits(variable: &Tensor, source: &Tensor) -> Result<bool> {
    let (ours, theirs) = (variable.f_kind()?, source.f_kind()?);
    let is_real = |kind| matches!(kind, Kind::Half | Kind::BFloat16 | Kind::Float | Kind::Double);
    Ok(variable.size() == source.size() && (ours == theirs || (is_real(ours) && is_real(theirs))))
}

fn describe(tensor: &Tensor) -> Result<String> {
    Ok(format!("{:?} {:?}", tensor.f_kind()?, tensor.size()))
}

#[cfg(test)]
mod tests;
