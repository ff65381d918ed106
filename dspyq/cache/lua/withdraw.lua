#!lua flags=allow-oom
-- Withdraws one caller from runs.
-- Libraries: cache/withdrawing.
-- Keys:
--   aliases...  PREDICTION: of the questions
-- Arguments:
--   is_own      '1' where the caller chose the ids, '' where they are the questions'
--   batch       of the caller, '' for none
--   asked...    of each the task, and the id under which an experiment counts the call, '' for none
-- Reply: for each, 1 if no caller waits for the run any more: then the question is free; 0 if others do or may, or it
--   is no run.
local replies = {}
for index, alias in ipairs(aliases) do
  replies[index] = withdraw(alias, asked[2 * index - 1], asked[2 * index], is_own == '1', batch)
end
return replies
