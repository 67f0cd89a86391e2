from csp.decorators import csp_update
from django.shortcuts import render


@csp_update({"script-src": ["https://cdn.example/chart@4.5.0/"]})
def chart(request):
    return render(request, "charts/chart.html")
