-- Counts calls as the scripts do that end a run.
-- Libraries: experiments/sums.
-- Arguments:
--   program    its name
--   rows...    three values a row: exposure, calls, of which failed
local counting
for index = 1, #rows, 3 do
  local exposed = split(rows[index])
  counting = counting or counting_of(program, exposed[1])
  count_unit(counting, exposed)
  count_calls(counting, exposed, { rows[index + 1], rows[index + 2], 0, 0, 0, 0, 0, 0, 0 })
end
return 1
