//! Distances as operators, as pgvector spells them: `a <-> b` is `l2_distance`, `a <=> b` `cosine_distance`, `a <#> b`
//! `negative_inner_product` and `a <+> b` `l1_distance`.
//!
//! The dialect that sessions speak knows `<=>` alone, as `is not distinct from`: where one side is a list it is a distance
//! here, and between other values what it was. It cuts the others into `<` and what follows, so [`tokens`] puts them
//! together again, as `operator(<->)`, which it does know. All bind as `=` does: comparisons to their right need no
//! parentheses, arithmetic does, as in `1 - (a <=> b)`.

use std::sync::Arc;

use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, ScalarUDF};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer, TokenizerError, Word};

use super::column::element_of;

/// Each operator with the function it stands for.
const OPERATORS: [(&str, &str); 4] = [
    ("<->", "l2_distance"),
    ("<=>", "cosine_distance"),
    ("<#>", "negative_inner_product"),
    ("<+>", "l1_distance"),
];

/// Makes a session that has the functions plan the operators.
pub(super) fn register(context: &SessionContext) -> Result<()> {
    let functions = OPERATORS.map(|(operator, function)| Ok((operator, context.udf(function)?)));
    let functions = functions.into_iter().collect::<Result<Vec<_>>>()?;
    // A clone is a handle of the same session.
    context.clone().register_expr_planner(Arc::new(Distances { functions }))
}

#[derive(Debug)]
struct Distances {
    functions: Vec<(&'static str, Arc<ScalarUDF>)>,
}

impl ExprPlanner for Distances {
    fn plan_binary_op(
        &self,
        expression: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let list = |side: &Expr| side.get_type(schema).is_ok_and(|found| element_of(&found).is_some());
        let operator = match &expression.op {
            BinaryOperator::PGCustomBinaryOperator(names) => names.join("."),
            BinaryOperator::Spaceship if list(&expression.left) || list(&expression.right) => {
                "<=>".to_owned()
            }
            _ => return Ok(PlannerResult::Original(expression)),
        };
        let Some((_, function)) = self.functions.iter().find(|(known, _)| *known == operator) else {
            return plan_err!("there is no operator {operator}");
        };
        let call = ScalarFunction::new_udf(Arc::clone(function), vec![expression.left, expression.right]);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

/// The tokens of a statement, with distances as `operator(...)`.
pub(crate) fn tokens(sql: &str) -> std::result::Result<Vec<TokenWithSpan>, TokenizerError> {
    let cut = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location()?;
    let mut tokens: Vec<TokenWithSpan> = Vec::with_capacity(cut.len());
    let mut rest = cut.as_slice();
    while let Some((first, after)) = rest.split_first() {
        let Some((operator, length)) = distance(rest) else {
            tokens.push(first.clone());
            rest = after;
            continue;
        };
        let span = Span::new(first.span.start, rest[length - 1].span.end);
        let symbol = Token::CustomBinaryOperator(operator.to_owned());
        if in_operator(&tokens) {
            tokens.push(TokenWithSpan::new(symbol, span));
        } else {
            let word = Word { value: "operator".to_owned(), quote_style: None, keyword: Keyword::OPERATOR };
            let whole = [Token::Word(word), Token::LParen, symbol, Token::RParen];
            tokens.extend(whole.map(|token| TokenWithSpan::new(token, span)));
        }
        rest = &rest[length..];
    }
    Ok(tokens)
}

/// The operator that tokens begin with, and of how many of them it is made.
fn distance(tokens: &[TokenWithSpan]) -> Option<(&'static str, usize)> {
    let token = |place: usize| tokens.get(place).map(|token| &token.token);
    let (operator, length) = match (token(0)?, token(1)?, token(2)) {
        (Token::Lt, Token::Arrow, _) => ("<->", 2),
        (Token::Lt, Token::Plus, Some(Token::Gt)) => ("<+>", 3),
        (Token::Lt, Token::HashArrow, _) => ("<#>", 2),
        _ => return None,
    };
    let adjacent = tokens[..length].windows(2).all(|pair| pair[0].span.end == pair[1].span.start);
    adjacent.then_some((operator, length))
}

/// Whether tokens end in `operator(`, as one may write it oneself.
fn in_operator(tokens: &[TokenWithSpan]) -> bool {
    let mut last =
        tokens.iter().rev().map(|token| &token.token).filter(|token| !matches!(token, Token::Whitespace(_)));
    matches!(last.next(), Some(Token::LParen))
        && matches!(last.next(), Some(Token::Word(word)) if word.keyword == Keyword::OPERATOR)
}
