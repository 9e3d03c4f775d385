"use strict";
// Every word of the page in English and Chinese. {0}, {1}, … stand for values.

const LABELS = {
  "language": ["Language", "语言"],
  "theme": ["Theme", "主题"],
  "theme-system": ["System", "跟随系统"],
  "theme-light": ["Light", "浅色"],
  "theme-dark": ["Dark", "深色"],
  "overview": ["Overview", "总览"],
  "questions": ["Questions", "问题"],
  "tree": ["Revision tree", "修订树"],
  "details": ["Query", "查询"],
  "reset": ["Reset filters", "清除筛选"],
  "keys": [
    "/ filter · ↑↓ move · Enter open · ←→↑↓ in a tree · Esc back",
    "/ 筛选 · ↑↓ 移动 · Enter 打开 · 树中用 ←→↑↓ · Esc 返回",
  ],
  "opening": ["Opening…", "正在打开…"],
  "too-old": [
    "This browser cannot inflate data (DecompressionStream); use a newer one.",
    "此浏览器不支持解压数据（DecompressionStream），请使用更新的浏览器。",
  ],
  "no-such-tree": ["No such question in this file: {0}", "此文件中没有该问题：{0}"],

  "filter-text": ["Filter by question, database or id", "按问题、数据库或编号筛选"],
  "database": ["Database", "数据库"],
  "difficulty": ["Difficulty", "难度"],
  "status": ["Status", "状态"],
  "outcome": ["Outcome", "执行结果"],
  "all-databases": ["All databases", "全部数据库"],
  "all-difficulties": ["All difficulties", "全部难度"],
  "all-statuses": ["Any status", "全部状态"],
  "all-outcomes": ["Any outcome", "全部执行结果"],
  "no-difficulty": ["(none)", "（无）"],
  "good": ["good", "成功"],
  "bad": ["bad", "失败"],
  "with-findings": ["with findings", "有校验问题"],
  "with-pairs": ["with pairs", "有偏好对"],
  "count": ["{0} of {1} questions", "{1} 个问题中的 {0} 个"],
  "none-match": ["No question matches.", "没有符合条件的问题。"],

  "of-selection": ["of the {0} questions that the filters leave", "筛选后的 {0} 个问题"],
  "of-all": ["of all {0} questions", "全部 {0} 个问题"],
  "good-trees": ["good trees", "成功的树"],
  "queries": ["queries", "查询"],
  "one-query": ["1 query", "1 个查询"],
  "query-count": ["{0} queries", "{0} 个查询"],
  "correct-queries": ["correct queries", "正确的查询"],
  "pairs": ["pairs", "偏好对"],
  "findings": ["findings", "校验问题"],
  "limits": ["at limits: {0}", "限额处的差异：{0}"],
  "depths": ["Depth of the trees", "树的深度"],
  "distances": ["Revision distance of the queries", "查询的修订距离"],
  "none-reached": ["none", "无"],
  "outcomes": ["Execution outcomes of the queries", "查询的执行结果"],
  "by-difficulty": ["By difficulty", "按难度"],
  "by-database": ["By database", "按数据库"],
  "verification": ["Verification", "校验"],
  "all-holds": ["Everything that was checked holds.", "检查的各项全部成立。"],
  "finding-counts": [
    "Findings by kind; the list shows their questions with the status “{0}”.",
    "各类校验问题的数量；在列表中选择状态“{0}”可查看相应问题。",
  ],
  "trees": ["trees", "树"],
  "share": ["good", "成功率"],
  "correct": ["correct", "正确"],
  "wrong": ["wrong", "错误"],
  "wrong-rows": ["wrong rows", "结果错误"],

  "evidence": ["Evidence", "外部知识"],
  "gold": ["Gold SQL", "标准 SQL"],
  "shortened": ["Left out of the prompt", "提示中省略的内容"],
  "feedback-own": ["own feedback", "自身反馈"],
  "feedback-oracle": ["oracle feedback", "对照标准答案的反馈"],
  "revision": ["revision: {0}", "修订方式：{0}"],
  "initial": ["Prompt", "初始提示"],
  "depth": ["depth {0}", "深度 {0}"],

  "outcome-ok": ["rows", "有结果"],
  "outcome-empty": ["empty", "空结果"],
  "outcome-error": ["error", "报错"],
  "outcome-denied": ["denied", "被拒绝"],
  "outcome-timeout": ["timeout", "超时"],
  "outcome-too_large": ["too large", "结果过大"],
  "outcome-not_a_query": ["not a query", "不是查询"],
  "outcome-no_sql": ["no SQL", "没有 SQL"],
  "outcome-crashed": ["crashed", "崩溃"],
  "outcome-unknown": ["not recorded", "未记录"],
  "not-strict": ["correct as a set of rows, not strictly", "按行集合正确，但不满足严格规则"],
  "distance": ["distance {0}", "距离 {0}"],
  "distance-none": ["no correct query below", "下方没有正确的查询"],
  "duplicate": ["same query as {0}", "与 {0} 相同"],
  "flags": ["flags", "标记"],
  "flag-constant": ["constant: no table is read", "常量：没有读取任何表"],
  "flag-quoted_literal": ["quoted literal: a name in double quotes was taken as text", "引号文本：双引号中的名称被当作文本"],
  "flag-clock_or_random": ["clock or random: may differ from run to run", "时间或随机：每次运行结果可能不同"],
  "flag-limit_without_order": [
    "limit without order: which rows come is left to chance",
    "有 LIMIT 而无排序：返回哪些行不确定",
  ],
  "flag-both_empty": ["both empty: gold returns nothing too", "均为空：标准答案也没有结果"],
  "flag-fragile": ["fragile: right only by coincidence", "脆弱：只是碰巧正确"],
  "loose": ["not below the prompt", "不在初始提示之下"],
  "tokens": ["{0} tokens", "{0} 个词元"],
  "reward": ["Reward", "奖励分数"],
  "reward-of": ["reward of {0}", "{0} 的奖励分数"],
  "preferred-mark": ["preferred to the chosen query", "优于所选查询"],
  "lesser-mark": ["worse than the chosen query", "劣于所选查询"],
  "flag-mark": ["flagged", "有标记"],
  "finding-mark": ["finding", "有校验问题"],
  "duplicate-mark": ["dashed: repeats an earlier query", "虚线：重复先前的查询"],
  "distance-mark": ["revisions to a correct query (– = none)", "到正确查询的修订次数（– 为无）"],

  "sql": ["SQL", "SQL"],
  "no-sql": ["The reply holds no query.", "回复中没有查询。"],
  "feedback": ["Execution feedback", "执行反馈"],
  "no-feedback": ["Not recorded.", "未记录。"],
  "difference": ["Difference to the parent, {0}", "与父节点 {0} 的差异"],
  "no-difference": ["The same query.", "查询相同。"],
  "removed": ["removed", "删除"],
  "added": ["added", "增加"],
  "node-pairs": ["Pairs with this query ({0})", "含此查询的偏好对（{0}）"],
  "no-pairs": ["In no pair.", "不在任何偏好对中。"],
  "better-than": ["preferred to {0}", "优于 {0}"],
  "worse-than": ["worse than {0}", "劣于 {0}"],
  "relation-parent": ["parent", "父节点"],
  "relation-child": ["child", "子节点"],
  "relation-sibling": ["sibling", "兄弟节点"],
  "relation-baseline": ["baseline", "基线"],
  "prompt": ["Prompt that asked for it", "得到此查询的提示"],
  "no-prompt": ["Not recorded.", "未记录。"],
  "role-user": ["user", "用户"],
  "role-assistant": ["assistant", "模型"],
  "stored-found": ["{0}: stored {1}, found {2}", "{0}：文件中为 {1}，实际为 {2}"],
  "limit-difference": ["at a limit", "限额处"],
};

const LANGUAGES = ["en", "zh"];
let language = navigator.language.startsWith("zh") ? "zh" : "en";

/** The label of `key` in the page's language. */
function t(key, ...values) {
  return LABELS[key][LANGUAGES.indexOf(language)].replace(/\{(\d)\}/g, (_, place) => values[place]);
}

/** The label of a value of a closed set, the value itself when it is not of the set. */
function named(kind, value) {
  return Object.hasOwn(LABELS, `${kind}-${value}`) ? t(`${kind}-${value}`) : String(value);
}

function outcomeName(outcome) {
  return named("outcome", outcome || "unknown");
}

function number(value) {
  return value.toLocaleString(language === "zh" ? "zh-CN" : "en-US");
}

function percent(part, whole) {
  return whole ? `${(100 * part / whole).toFixed(1)} %` : "–";
}
