//! The WINDOW clause: windows that are named once and used in OVER.
//!
//! DataFusion resolves such names only where OVER stands directly in the SELECT list, and never for
//! a window that is built on another. Every use therefore gets the window's definition before
//! DataFusion sees it.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, NamedWindowDefinition, NamedWindowExpr, OrderByKind, Query, Select, SetExpr, Statement, VisitMut, VisitorMut,
    WindowSpec, WindowType, visit_expressions_mut,
};

use crate::error::{Error, sqlstate};
use crate::parser::fold;

/// Replaces the names of windows by their definitions.
///
/// # Errors
/// `42704` for a window that is not defined, `42P20` for one that redefines a part of the window
/// that it is built on.
pub(super) fn expand(statement: &mut Statement) -> Result<(), Error> {
    match statement.visit(&mut Windows) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Windows;

impl VisitorMut for Windows {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        match in_query(query) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn in_query(query: &mut Query) -> Result<(), Error> {
    let SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    let mut defined = HashMap::new();
    for NamedWindowDefinition(name, definition) in std::mem::take(&mut select.named_window) {
        let spec = match definition {
            NamedWindowExpr::NamedWindow(other) => find(&defined, &fold(&other))?,
            NamedWindowExpr::WindowSpec(spec) => whole(&defined, spec)?,
        };
        if defined.insert(fold(&name), spec).is_some() {
            let message = format!("window \"{}\" is already defined", fold(&name));
            return Err(Error::user(WINDOWING_ERROR, message));
        }
    }
    in_select(select, &defined)?;
    if let Some(OrderByKind::Expressions(keys)) = query.order_by.as_mut().map(|order| &mut order.kind) {
        keys.iter_mut().try_for_each(|key| in_expression(&mut key.expr, &defined))?;
    }
    Ok(())
}

fn in_select(select: &mut Select, defined: &HashMap<String, WindowSpec>) -> Result<(), Error> {
    use sqlparser::ast::SelectItem;
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            in_expression(expr, defined)?;
        }
    }
    Ok(())
}

fn in_expression(expr: &mut Expr, defined: &HashMap<String, WindowSpec>) -> Result<(), Error> {
    let visited = visit_expressions_mut(expr, |expr| {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let spec = match function.over.take() {
            Some(WindowType::NamedWindow(name)) => find(defined, &fold(&name)),
            Some(WindowType::WindowSpec(spec)) => whole(defined, spec),
            None => return ControlFlow::Continue(()),
        };
        match spec {
            Ok(spec) => {
                function.over = Some(WindowType::WindowSpec(spec));
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    });
    match visited {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

const WINDOWING_ERROR: &str = "42P20";

fn find(defined: &HashMap<String, WindowSpec>, name: &str) -> Result<WindowSpec, Error> {
    let missing = || Error::user(sqlstate::UNDEFINED_OBJECT, format!("window \"{name}\" does not exist"));
    defined.get(name).cloned().ok_or_else(missing)
}

/// Completes a window with the definition of the one that it is built on.
fn whole(defined: &HashMap<String, WindowSpec>, mut spec: WindowSpec) -> Result<WindowSpec, Error> {
    let Some(name) = spec.window_name.take() else { return Ok(spec) };
    let name = fold(&name);
    let base = find(defined, &name)?;
    let wrong = |what: String| Err(Error::user(WINDOWING_ERROR, what));
    if !spec.partition_by.is_empty() {
        return wrong(format!("cannot override PARTITION BY clause of window \"{name}\""));
    }
    if !spec.order_by.is_empty() && !base.order_by.is_empty() {
        return wrong(format!("cannot override ORDER BY clause of window \"{name}\""));
    }
    if base.window_frame.is_some() {
        return wrong(format!("cannot copy window \"{name}\" because it has a frame clause"));
    }
    spec.partition_by = base.partition_by;
    if spec.order_by.is_empty() {
        spec.order_by = base.order_by;
    }
    Ok(spec)
}
